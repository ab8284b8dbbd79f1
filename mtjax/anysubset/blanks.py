"""Texts with blanks: from "text ___ text" or token spans to context and target tokens."""

import dataclasses
import itertools
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import SupportsIndex

from mtjax.data.pieces import encode_pieces
from mtjax.data.tokenizers import Tokenizer

BLANK = "___"
_BLANK = re.compile("_{3,}")
# How vocabularies of masked models spell the token that stands for a missing one.
_MASKS = ("<mask>", "[MASK]", "<|mask|>", "<|mdm_mask|>", "<extra_id_0>")

Lengths = SupportsIndex | Sequence[SupportsIndex | Sequence[SupportsIndex]]


@dataclasses.dataclass(frozen=True)
class Blanked:
  """A text of tokens with blanks: pieces[0], a blank of lengths[0] tokens, pieces[1], ..."""

  pieces: tuple[tuple[int, ...], ...]
  lengths: tuple[int, ...]

  @property
  def size(self) -> int:
    return sum(map(len, self.pieces)) + sum(self.lengths)

  @property
  def spans(self) -> list[tuple[int, int]]:
    """The (start, stop) of each blank."""
    spans, start = [], 0
    for piece, length in zip(self.pieces, self.lengths, strict=False):
      start += len(piece)
      spans.append((start, start + length))
      start += length
    return spans

  def is_target(self) -> list[bool]:
    out = [False] * self.size
    for start, stop in self.spans:
      out[start:stop] = [True] * (stop - start)
    return out

  def tokens(self, filling: int = 0) -> list[int]:
    """Returns all tokens, with `filling` where one is missing."""
    out: list[int] = []
    for piece, length in zip(self.pieces, (*self.lengths, 0), strict=True):
      out += [*piece, *[filling] * length]
    return out


def blanks_in(text: str, tokenizer: Tokenizer, lengths: Lengths) -> Iterator[Blanked]:
  """Yields the text, `BLANK` for every missing span, once for every choice of the blanks' lengths.

  Three or more underscores in a row are one blank.
  `lengths`: the number of tokens of every blank; or one item per blank, each a number or several
  candidates. The pieces between blanks are encoded one by one, so where a blank begins and ends is
  no hint at what is missing; decoded, they are what they were (`mtjax.data.pieces`). A space before
  a blank belongs to the blank, because a word's token includes the space before it (but the
  indentation of a line stays context).

  Raises ValueError for several texts, a text without a blank, a mask token in the text (the
  tokenizer's own or a usual one: it would be read as plain text), another number of lengths than
  blanks, a length below 1, no candidates, and as `encode_pieces` does.
  """
  if not isinstance(text, str):
    raise ValueError(f"one text is filled at a time, got {text!r}")
  pieces = _BLANK.split(text)
  if len(pieces) == 1:
    raise ValueError(f"the text has no blank: write {BLANK} where something is missing")
  masks = [mask for mask in (tokenizer.mask_token, *_MASKS) if mask and mask in text]
  if masks:
    raise ValueError(f"the text holds a mask token, {masks[0]!r}: write {BLANK} for a blank")
  choices = _candidates(lengths, len(pieces) - 1)
  pieces = [*(_without_space(piece) for piece in pieces[:-1]), pieces[-1]]
  ids = tuple(map(tuple, encode_pieces(tokenizer, pieces)))
  return (Blanked(ids, chosen) for chosen in itertools.product(*choices))


def starts_with_space(text: str) -> list[bool]:
  """Returns for each blank whether the space before it belongs to it (`blanks_in`)."""
  return [_without_space(piece) != piece for piece in _BLANK.split(text)[:-1]]


def count_blanks(text: str) -> int:
  """Returns how many spans are missing from a text with `BLANK` for each."""
  return len(_BLANK.findall(text))


def blank_spans(tokens: Sequence[int], spans: Sequence[tuple[int, int]]) -> Blanked:
  """Returns a text of tokens with blanks for its spans (start, stop), to fill what is known again.

  Raises ValueError for no span, one that is empty or not within the text, and two that overlap.
  """
  if not spans:
    raise ValueError("there is no span to fill")
  pieces, lengths, end = [], [], 0
  for start, stop in sorted(spans):
    if not 0 <= start < stop <= len(tokens):
      raise ValueError(f"span {(start, stop)} is not within a text of {len(tokens)} tokens")
    if start < end:
      raise ValueError(f"span {(start, stop)} overlaps another one, which ends at {end}")
    pieces.append(tuple(tokens[end:start]))
    lengths.append(stop - start)
    end = stop
  return Blanked((*pieces, tuple(tokens[end:])), tuple(lengths))


def _without_space(piece: str) -> str:
  inner = piece[:-1]
  return inner if piece.endswith(" ") and inner and not inner[-1].isspace() else piece


def _candidates(lengths: Lengths, blanks: int) -> list[list[int]]:
  each = _listed(lengths) or [lengths] * blanks
  if len(each) != blanks:
    raise ValueError(f"lengths are for {len(each)} blanks, but the text has {blanks}")
  out = []
  for number, candidates in enumerate(each, 1):
    counts = [_whole(x) for x in _listed(candidates) or [candidates]]
    if min(counts) < 1:
      raise ValueError(
        f"blank {number} takes a number of tokens, at least 1, or several to choose from: "
        f"got {candidates!r}"
      )
    out.append(list(dict.fromkeys(counts)))
  return out


def _listed(values) -> list | None:
  """Returns the values as a list, or None for a number (also an array of no dimension)."""
  return list(values) if isinstance(values, Iterable) and getattr(values, "ndim", 1) else None


def _whole(value) -> int:
  """Returns a whole number as an int, and 0, which is no length, for anything else."""
  try:
    return 0 if isinstance(value, bool) else operator.index(value)
  except TypeError:
    return 0
