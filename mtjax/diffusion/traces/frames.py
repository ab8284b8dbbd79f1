"""Canvases as pictures show them, after each pass; drawn from a trace."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from mtjax.diffusion.denoising.traces import Trace, TracedPass


@dataclasses.dataclass(frozen=True)
class CanvasFrame:
  """The canvases of a batch after a pass, prompts left out; frame 0 is before the first pass."""

  number: int  # of passes that were made, counted over the batch
  tokens: list[list[int | None]]  # None where a mask stands, or nothing is predicted yet
  decided_at: list[list[int]]  # the pass of the row that decided a token last, from 1; 0: a mask


def trace_frames(
  trace: Trace, prompts: Sequence[Sequence[int]], length: int
) -> Iterator[CanvasFrame]:
  """Yields the canvases before the first pass and after each, up to `length` tokens of each row.

  If every round is one pass, `on_pass` of `TextModel.denoise` is called with the same frames. In
  a trace of an any-subset model each pass has a frame of its own, also where a round has several.
  `prompts`: as tokens.
  """
  passes = jax.tree.map(np.asarray, trace.passes)
  canvas = np.asarray(passes.canvas)
  start = [len(prompt) for prompt in prompts]
  shown = _Shown.before(canvas[0], start, trace.mask_id)
  yield shown.frame(0, start, length)
  for number in range(1, trace.num_passes + 1):
    shown.after(jax.tree.map(lambda values, n=number: values[n - 1], passes), number)
    yield shown.frame(number, start, length)


@dataclasses.dataclass
class _Shown:
  """What stands on canvases: tokens, which of them are known, and the passes that decided them."""

  token: Int[np.ndarray, "B S"]
  known: Bool[np.ndarray, "B S"]
  at: Int[np.ndarray, "B S"]
  mask_id: int | None

  @classmethod
  def before(
    cls, canvas: Int[np.ndarray, "B S"], start: Sequence[int], mask_id: int | None
  ) -> "_Shown":
    known = np.arange(canvas.shape[1]) < np.array(start)[:, None]
    return cls(np.array(canvas), known, np.zeros(canvas.shape, int), mask_id)

  def after(self, one: TracedPass, number: int) -> None:
    """Writes the decisions of a pass into the canvases."""
    if one.text is not None:
      self._predicted(one, np.asarray(one.text), number)
      return
    revision, index = one.revision, np.asarray(one.index)
    token, known, at = (self._read(x, index) for x in (self.token, self.known, self.at))
    new = revision.written | revision.edited
    token, at = np.where(new, one.token, token), np.where(new, number, at)
    known = (known | revision.written) & ~revision.remasked
    here, at = new | revision.remasked, np.where(revision.remasked, 0, at)
    if revision.deleted is not None:
      token, known, at = (np.asarray(revision.move(jnp.asarray(x), 0)) for x in (token, known, at))
      here = (index == index[:, :1] + np.arange(index.shape[1])) & (index < one.end[:, None])
    self._write(index, here, token, known, at)

  def _predicted(self, one: TracedPass, text: Int[np.ndarray, "B W"], number: int) -> None:
    """Makes what a pass over uniform canvases has done, which show their text."""
    index, revision = np.asarray(one.index), one.revision
    running = np.any(np.asarray(revision.written | revision.remasked), axis=1)[:, None]
    same = self._read(self.known, index) & (self._read(self.token, index) == text)
    at = np.where(same, self._read(self.at, index), number)
    self._write(index, np.broadcast_to(running, index.shape), text, np.ones_like(same), at)

  def _read(self, values: np.ndarray, index: Int[np.ndarray, "B W"]) -> np.ndarray:
    return np.take_along_axis(values, index, axis=1)

  def _write(self, index, here, token, known, at) -> None:
    rows, place = np.nonzero(here)
    columns = index[rows, place]
    for values, new in ((self.token, token), (self.known, known), (self.at, at)):
      values[rows, columns] = new[rows, place]

  def frame(self, number: int, start: Sequence[int], length: int) -> CanvasFrame:
    """Returns what there is to show."""
    tokens, decided = [], []
    hidden = ~self.known if self.mask_id is None else ~self.known | (self.token == self.mask_id)
    for row, first in enumerate(start):
      here = slice(first, first + length)
      pairs = zip(self.token[row, here].tolist(), hidden[row, here].tolist(), strict=True)
      tokens.append([None if is_hidden else token for token, is_hidden in pairs])
      decided.append(np.where(hidden, 0, self.at)[row, here].tolist())
    return CanvasFrame(number, tokens, decided)
