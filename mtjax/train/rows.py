"""Tokens that were stored before: no tokenizer and no text at training time."""

import os
from collections.abc import Iterable, Sequence

import numpy as np


def store_rows(path: str, documents: Iterable[Sequence[int]], *, end: int) -> None:
  """Writes documents of token ids, in the order given and each followed by `end`, to an .npz."""
  parts = [np.asarray([*document, end], np.int32) for document in documents]
  numbers = [np.full(len(part), index, np.int32) for index, part in enumerate(parts)]
  np.savez(path, flat=np.concatenate(parts), seg=np.concatenate(numbers))


class StoredRows:
  """An endless iterator of batches from what `store_rows` wrote: `flat` [N], `seg` [N].

  Rows are windows of `length` tokens, each next token the target where it is of the same document.
  Every epoch has an order of its own, drawn from (seed, epoch): the state is one integer. Raises
  FileNotFoundError or ValueError for a file that is missing, shorter than a batch, or of another
  vocabulary.
  """

  def __init__(self, path: str, *, batch: int, length: int, seed: int, vocab_size: int):
    if not os.path.exists(path):
      raise FileNotFoundError(f"no stored rows at {path!r}")
    with np.load(path) as stored:
      missing = {"flat", "seg"} - set(stored)
      if missing:
        raise ValueError(f"{path!r} lacks {', '.join(sorted(missing))}")
      flat, document = stored["flat"], stored["seg"]
    rows = (len(flat) - 1) // length
    if rows < batch:
      raise ValueError(f"{path!r} has {rows} rows of {length} tokens, a batch needs {batch}")
    if not (0 <= flat.min() and flat.max() < vocab_size):
      raise ValueError(
        f"{path!r} has token ids from {flat.min()} to {flat.max()}, the model {vocab_size} tokens"
      )
    end = rows * length
    self._tokens = flat[:end].reshape(rows, length)
    self._targets = flat[1 : end + 1].reshape(rows, length)
    self._document = document[:end].reshape(rows, length)
    self._next = document[1 : end + 1].reshape(rows, length)
    self._batch, self._seed, self._step = batch, seed, 0

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    index = self._rows(self._step)
    self._step += 1
    document = self._document[index]
    return dict(
      tokens=self._tokens[index].astype(np.int32),
      targets=self._targets[index].astype(np.int32),
      # Numbers from 1 in each row: 0 is padding, and there is none.
      segment=(document - document[:, :1] + 1).astype(np.int32),
      weight=(self._next[index] == document).astype(np.float32),
    )

  def get_state(self) -> dict[str, int]:
    """The number of batches given out."""
    return dict(step=self._step)

  def set_state(self, state: dict[str, int]) -> None:
    """Continues as after that many batches."""
    self._step = int(state["step"])

  def _rows(self, step: int) -> np.ndarray:
    batches = len(self._tokens) // self._batch
    epoch, batch = divmod(step, batches)
    order = np.random.default_rng((self._seed, epoch)).permutation(len(self._tokens))
    return order[batch * self._batch : (batch + 1) * self._batch]
