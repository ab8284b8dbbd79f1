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
  process `shard_index` of `shard_count` gets every shard_count-th of them. The state counts the
  returned batches and is the same in every process. Raises ValueError for bad arguments, and what
  `tokenized` raises.
  """

  def __init__(
    self,
    sources: Sequence[str | Source],
    tokenizer: Tokenizer,
    *,
    batch: int,
    length: int,
    seed: int,
    shard_index: int = 0,
    shard_count: int = 1,
    cache_dir: str = "",
  ):
    chosen = [Source.parse(source) for source in sources]
    _check(chosen, batch, length, shard_index, shard_count)
    import grain

    texts = [tokenized(source, tokenizer, cache_dir=cache_dir) for source in chosen]
    rows = [
      PackedRows(
        text, length=length, begin=tokenizer.bos_id, pad=tokenizer.pad_id, seed=(seed, number)
      )
      for number, text in enumerate(texts)
    ]
    weights = [source.weight for source in chosen]
    self.rows_per_epoch = [part.rows for part in rows]
    self._identity = _identity([text.key for text in texts], weights, batch, length, seed)
    mixed = grain.MapDataset.mix([grain.MapDataset.source(part) for part in rows], weights)
    mine = mixed.slice(slice(shard_index, None, shard_count))
    # grain's default, 16 threads and 500 batches ahead, would take cores and memory from training.
    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    self._batches = iter(mine.batch(batch // shard_count).to_iter_dataset(ahead))

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


def _check(sources, batch, length, shard_index, shard_count) -> None:
  if not sources:
    raise ValueError('there is no source: give one, for example "builtin:tinyshakespeare"')
  if batch < 1 or length < 1:
    raise ValueError(f"batch and length must be at least 1, got {batch} and {length}")
  if not 0 <= shard_index < shard_count:
    raise ValueError(f"shard_index must be from 0 to {shard_count - 1}, got {shard_index}")
  if batch % shard_count:
    raise ValueError(f"a batch of {batch} rows does not divide over {shard_count} processes")


def _identity(keys, weights, batch, length, seed) -> str:
  parts = json.dumps([keys, weights, batch, length, seed])
  return hashlib.sha256(parts.encode()).hexdigest()[:16]
