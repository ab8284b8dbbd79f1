"""Pieces of one text: each encoded, and decoded, as what it is in the text.

Tokenizers of the SentencePiece kind put a space before every text that they encode, and drop the
space that a text begins with when they decode. What stands within a text is no beginning: a piece
of it must neither get a space nor lose one.
"""

from collections.abc import Sequence

from mtjax.data.tokenizers import Tokenizer, pieces_of

# What a piece may follow when it is encoded: behind most of these most tokenizers cut any text.
_BEFORE = ("0", "\n", "z", ".", "(", "Q")


def encode_pieces(tokenizer: Tokenizer, pieces: Sequence[str]) -> list[list[int]]:
  """Returns the tokens of every piece of one text, each encoded by itself.

  The first piece is encoded as a text. Every other one is encoded behind a short text at whose end
  the tokenizer makes a cut, and what follows the cut is taken: no merge crosses it, so these are
  the tokens that the piece has within any text that is cut where the piece begins. A tokenizer that
  puts nothing before a text gives each piece the tokens that it has alone.

  Raises ValueError for a piece that the tokenizer cuts off behind none of the texts tried.
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
  """What the tokenizer puts before a text; b"" where its tokens do not spell the text."""
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
    f"the tokenizer makes no cut before {piece[:20]!r}: that cannot be encoded behind a blank"
  )
