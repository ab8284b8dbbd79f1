"""Texts with missing spans or scattered tokens, cut to one size, for measurements of infilling."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtjax.anysubset.blanks import Blanked, blank_spans
from mtjax.data.pieces import encode_pieces
from mtjax.data.sources.text_files import read_records
from mtjax.data.tokenizers import Tokenizer

_FIELDS = ("prompt", "canonical_solution", "suffix")


def code_spans(
  path: str | Path, tokenizer: Tokenizer, *, size: int, max_tokens: int, count: int
) -> list[tuple[Blanked, list[int]]]:
  """Returns `count` problems of humaneval_infilling (2207.14255) with their missing tokens.

  The problems are spread evenly over the file, which holds JSON lines, gzipped or not; prompt,
  solution and suffix are encoded one by one. `size` tokens around the blank are kept; problems with
  fewer, or with a blank of more than `max_tokens` tokens, are left out. Raises FileNotFoundError,
  and ValueError for a file of another kind or with too few problems.
  """
  rows = []
  for _, record in read_records(path, _FIELDS):
    before, missing, after = encode_pieces(tokenizer, [record[name] for name in _FIELDS])
    if 0 < len(missing) <= max_tokens and len(before) + len(missing) + len(after) >= size:
      rows.append(_cut(before, missing, after, size))
  return _some(rows, count, path)


def scattered(
  documents: Sequence[np.ndarray], *, size: int, rate: float, count: int, seed: int = 0
) -> list[tuple[Blanked, list[int]]]:
  """Returns `count` rows of `size` tokens with round(rate * size) of them missing, uniformly.

  Raises ValueError for texts that hold fewer than `count` rows and for a rate outside (0, 1).
  """
  if not 0 < rate < 1:
    raise ValueError(f"rate must be between 0 and 1, got {rate}")
  rng = np.random.default_rng(seed)
  rows = []
  for document in documents:
    for start in range(0, len(document) - size + 1, size):
      row = np.asarray(document[start : start + size])
      places = np.sort(rng.permutation(size)[: max(round(rate * size), 1)])
      rows.append((blank_spans(row.tolist(), [(i, i + 1) for i in places]), row[places].tolist()))
  return _some(rows, count, "the texts")


def around(before: int, missing: int, after: int, size: int) -> tuple[int, int]:
  """Returns how many of `before` and `after` tokens to keep, so that the text has `size` tokens.

  Each side gets half of the free places, and those that the other side does not need.
  """
  free = size - missing
  left = min(before, max(free - after, (free + 1) // 2))
  return left, min(free - left, after)


def _cut(before, missing, after, size):
  left, right = around(len(before), len(missing), len(after), size)
  text = before[len(before) - left :] + missing + after[:right]
  return blank_spans(text, [(left, left + len(missing))]), missing


def _some(rows, count, where):
  if len(rows) < count:
    raise ValueError(f"{where}: there are {len(rows)} rows of that size, but {count} are needed")
  return [rows[i] for i in np.linspace(0, len(rows) - 1, count).astype(int)]
