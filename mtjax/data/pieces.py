"""Pieces of one text: each is encoded, and decoded, as it stands in the text.

Tokenizers of the SentencePiece kind put a space before every text that they encode, and drop the
first space of a text when they decode. A piece in the middle of a text must neither get a space
nor lose one, because the text does not begin there.
"""

from collections.abc import Sequence

from mtjax.data.tokenizers import Tokenizer, pieces_of

# Texts that a piece may follow when it is encoded: most tokenizers cut after most of these.
_BEFORE = ("0", "\n", "z", ".", "(", "Q")


def encode_pieces(tokenizer: Tokenizer, pieces: Sequence[str]) -> list[list[int]]:
  """Returns the tokens of every piece of one text, each encoded by itself.

  The first piece is encoded as a text. Every other one is encoded after a short text at whose end
  the tokenizer makes a cut, and the tokens after the cut are returned: no merge crosses it, so the
  piece has these tokens within any text that is cut where the piece begins. With a tokenizer that
  puts nothing before a text, each piece has the same tokens as alone.

  Raises ValueError for a piece that the tokenizer cuts off after none of the texts in _BEFORE.
  """
  alone = [list(map(int, ids)) for ids in tokenizer.encode_documents(pieces)]
  lead = _lead(tokenizer)
  if lead:
    alone = [ids if piece else [] for ids, piece in zip(alone, pieces, strict=True)]
    alone[1:] = [_continued(tokenizer, piece, lead) if piece else [] for piece in pieces[1:]]
  return alone


def decode_continuation(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
  """Returns the text of tokens that stand within a text, with the space that it may begin with."""
  before = list(map(int, tokenizer.encode_documents([_BEFORE[0]])[0]))
  start, whole = tokenizer.decode(before), tokenizer.decode([*before, *ids])
  return whole[len(start) :] if whole.startswith(start) else tokenizer.decode(ids)


def _lead(tokenizer: Tokenizer) -> bytes:
  """Returns what the tokenizer puts before a text; b"" if its tokens do not spell the text."""
  for before in _BEFORE:
    spelled = b"".join(pieces_of(tokenizer, tokenizer.encode_documents([before])[0]))
    if spelled.endswith(before.encode()):
      return spelled[: -len(before.encode())]
  return b""


def _continued(tokenizer: Tokenizer, piece: str, lead: bytes) -> list[int]:
  for before in _BEFORE:
    ids = list(map(int, tokenizer.encode_documents([before + piece])[0]))
    begun, goal = b"", lead + before.encode()
    for place, spelled in enumerate(pieces_of(tokenizer, ids), 1):
      begun += spelled
      if begun == goal:
        return ids[place:]
  raise ValueError(
    f"the tokenizer makes no cut before {piece[:20]!r}, so it cannot be encoded after a blank"
  )
