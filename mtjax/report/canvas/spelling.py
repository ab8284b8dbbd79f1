"""The text of a canvas place by place, some of which are masks."""

import codecs
from collections.abc import Mapping, Sequence

from mtjax.data.tokenizers import Tokenizer, pieces_of

MASK = "░"


def spelled(pieces: Sequence[bytes | None]) -> list[str | None]:
  """Returns what each place shows, None for a mask; a character of several stands at its last one.

  A character that a mask cuts off is U+FFFD, at the place before the mask.
  """
  decoder = codecs.getincrementaldecoder("utf-8")("replace")
  shown: list[str | None] = []
  for at, piece in enumerate(pieces):
    is_cut = at + 1 == len(pieces) or pieces[at + 1] is None
    shown.append(None if piece is None else decoder.decode(piece, final=is_cut))
  return shown


def spelled_tokens(tokenizer: Tokenizer, tokens: Sequence[int | None]) -> list[str | None]:
  """Returns `spelled` of tokens, where special tokens show their names."""
  names = special_names(tokenizer)
  known = [token for token in tokens if token is not None]
  pieces = dict(zip(known, pieces_of(tokenizer, known), strict=True))
  return spelled(
    [None if token is None else pieces[token] or names.get(token, "").encode() for token in tokens]
  )


def special_names(tokenizer: Tokenizer) -> Mapping[int, str]:
  """Returns the names of special tokens; all that end a text show one short sign."""
  names = {token: name for name, token in tokenizer.special_tokens().items()}
  return names | dict.fromkeys(tokenizer.eos_ids, "∎")
