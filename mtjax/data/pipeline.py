"""Batches from source strings: a resumable mixture for training, ordered rows for scoring."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mtjax.data.packing import PackedRows
from mtjax.data.sources.source import Source
from mtjax.data.token_cache import TokenizedText, tokenized
from mtjax.data.tokenizers import Tokenizer

Batch = dict[str, np.ndarray]


class TrainBatches:
  """An endless iterator of batches of packed rows (see `PackedRows`), each array [B, L].

  Sources are mixed row by row in proportion to their weights, and each repeats in epochs of its
  own. The n-th batch is a function of the arguments only. `batch` counts the rows of all processes;
  `rows` are the numbers of those that this process gets, in this order (None: all of them). The
  state counts the returned batches and is the same in every process, so it continues with another
  number of processes. Raises ValueError for bad arguments, and what `tokenized` raises.
  """

  def __init__(
    self,
    sources: Sequence[str | Source],
    tokenizer: Tokenizer,
    *,
    batch: int,
    length: int,
    seed: int,
    rows: Sequence[int] | None = None,
    cache_dir: str = "",
  ):
    chosen = [Source.parse(source) for source in sources]
    mine = tuple(range(batch) if rows is None else rows)
    _check(chosen, batch, length, mine)
    import grain

    texts = [tokenized(source, tokenizer, cache_dir=cache_dir) for source in chosen]
    packed = [
      PackedRows(
        text, length=length, begin=tokenizer.bos_id, pad=tokenizer.pad_id, seed=(seed, number)
      )
      for number, text in enumerate(texts)
    ]
    weights = [source.weight for source in chosen]
    self.rows_per_epoch = [part.rows for part in packed]
    self._identity = _identity([text.key for text in texts], weights, batch, length, seed)
    mixed = grain.MapDataset.mix([grain.MapDataset.source(part) for part in packed], weights)
    chosen_rows = grain.MapDataset.source(_RowsOfBatches(mixed, batch, mine))
    # grain's default, 16 threads and 500 batches ahead, would take cores and memory from training.
    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    self._batches = iter(chosen_rows.batch(len(mine)).to_iter_dataset(ahead))

  def __iter__(self):
    return self

  def __next__(self) -> Batch:
    return next(self._batches)

  def get_state(self) -> dict[str, Any]:
    """Returns JSON: the position of the iterator, and a hash of its data."""
    return dict(reader=self._batches.get_state(), data=self._identity)

  def set_state(self, state: dict[str, Any]) -> None:
    """Continues from that state. Raises ValueError for a state of other data or settings."""
    if state.get("data") != self._identity:
      raise ValueError(
        "the data's state is of other texts, weights, tokenizer, batch, length or seed than these"
      )
    self._batches.set_state(state["reader"])


@dataclasses.dataclass(frozen=True)
class EvalRows:
  """Rows that hold every token of some texts once.

  Bits per byte is (sum of weight * -ln p(target)) / ln 2 / bytes. The documents' ends have weight
  0: they are no text.
  """

  rows: list[Batch]
  tokens: int
  bytes: int  # number of bytes of the texts in UTF-8

  def batches(self, size: int) -> Iterator[Batch]:
    """Yields arrays [size, L]; the last batch is filled up with rows of weight 0."""
    if size < 1:
      raise ValueError(f"a batch must hold at least 1 row, got {size}")
    for first in range(0, len(self.rows), size):
      part = self.rows[first : first + size]
      blank = {name: np.zeros_like(array) for name, array in part[0].items()}
      part = part + [blank] * (size - len(part))
      yield {name: np.stack([row[name] for row in part]) for name in part[0]}


def eval_rows(
  source: str | Source, tokenizer: Tokenizer, *, length: int, cache_dir: str = ""
) -> EvalRows:
  """Returns the source packed in its own order, without shuffling, every token once.

  A document's first row begins with the begin token; a later one has no context before it (see
  `mtjax.evaluate.perplexity` and `eval_documents` for rows that overlap).
  """
  text = tokenized(Source.parse(source), tokenizer, cache_dir=cache_dir)
  packed = PackedRows(text, length=length, begin=tokenizer.bos_id, pad=tokenizer.pad_id, seed=())
  rows = [packed.in_order(row) for row in range(packed.rows)]
  ends = text.ends - 1
  for row, column in zip(ends // length, ends % length, strict=True):
    rows[row]["weight"][column] = 0
  return EvalRows(rows, len(text.tokens) - len(text.ends), int(text.sizes.sum()))


def eval_documents(
  source: str | Source, tokenizer: Tokenizer, *, cache_dir: str = ""
) -> list[tuple[np.ndarray, int]]:
  """Returns (tokens without the end, bytes) of each document, for `perplexity.score`."""
  text = tokenized(Source.parse(source), tokenizer, cache_dir=cache_dir)
  return [_document(text, number) for number in range(len(text.ends))]


def _document(text: TokenizedText, number: int) -> tuple[np.ndarray, int]:
  span = slice(int(text.starts[number]), int(text.ends[number]) - 1)
  return np.asarray(text.tokens[span], np.int32), int(text.sizes[number])


@dataclasses.dataclass(frozen=True)
class _RowsOfBatches:
  """The rows of some numbers of each batch, one batch after the other."""

  rows: Any  # all rows, by index
  batch: int
  numbers: tuple[int, ...]

  def __len__(self) -> int:
    return len(self.rows) // self.batch * len(self.numbers)

  def __getitem__(self, index: int):
    step, at = divmod(index, len(self.numbers))
    return self.rows[step * self.batch + self.numbers[at]]


def _check(sources, batch, length, rows) -> None:
  if not sources:
    raise ValueError('there is no source: give one, for example "builtin:tinyshakespeare"')
  if batch < 1 or length < 1:
    raise ValueError(f"batch and length must be at least 1, got {batch} and {length}")
  if not rows:
    raise ValueError(f"a process without any of the {batch} rows of a batch has nothing to feed")
  if wrong := [row for row in rows if not 0 <= row < batch]:
    raise ValueError(f"rows of a batch are from 0 to {batch - 1}, got {wrong[0]}")


def _identity(keys, weights, batch, length, seed) -> str:
  parts = json.dumps([keys, weights, batch, length, seed])
  return hashlib.sha256(parts.encode()).hexdigest()[:16]
