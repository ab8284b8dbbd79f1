"""Texts with spans or scattered tokens missing, cut to one size: what infilling is measured on."""

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
  """Problems of humaneval_infilling (2207.14255) and what is missing, `count` of them, evenly.

  The file's JSON lines, gzipped or not; prompt, solution and suffix are encoded one by one. Of the
  text, `size` tokens around the blank are kept; problems with less, or with a blank of more than
  `max_tokens` tokens, are left out. Raises FileNotFoundError, and ValueError for another file or
  too few problems.
  """
  found = []
  for _, record in read_records(path, _FIELDS):
    before, missing, after = encode_pieces(tokenizer, [record[name] for name in _FIELDS])
    if 0 < len(missing) <= max_tokens and len(before) + len(missing) + len(after) >= size:
      found.append(_cut(before, missing, after, size))
  return _some(found, count, path)


def scattered(
  documents: Sequence[np.ndarray], *, size: int, rate: float, count: int, seed: int = 0
) -> list[tuple[Blanked, list[int]]]:
  """Rows of `size` tokens with round(rate * size) of them missing, each set equally likely.

  Raises ValueError for texts that hold fewer than `count` rows and for a rate outside (0, 1).
  """
  if not 0 < rate < 1:
    raise ValueError(f"a rate is between 0 and 1, got {rate}")
  rng = np.random.default_rng(seed)
  found = []
  for document in documents:
    for start in range(0, len(document) - size + 1, size):
      row = np.asarray(document[start : start + size])
      places = np.sort(rng.permutation(size)[: max(round(rate * size), 1)])
      found.append((blank_spans(row.tolist(), [(i, i + 1) for i in places]), row[places].tolist()))
  return _some(found, count, "the texts")


def around(before: int, missing: int, after: int, size: int) -> tuple[int, int]:
  """How many of `before` and `after` tokens stay when `size` are kept around the missing ones.

  Half of the room each; what one side does not need is the other's. No more than there are.
  """
  free = size - missing
  left = min(before, max(free - after, (free + 1) // 2))
  return left, min(free - left, after)


def _cut(before, missing, after, size):
  left, right = around(len(before), len(missing), len(after), size)
  text = before[len(before) - left :] + missing + after[:right]
  return blank_spans(text, [(left, left + len(missing))]), missing


def _some(found, count, where):
  if len(found) < count:
    raise ValueError(f"{where}: {len(found)} rows of that size, and {count} are wanted")
  return [found[i] for i in np.linspace(0, len(found) - 1, count).astype(int)]
