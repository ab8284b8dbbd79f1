"""Filling as Set Diffusion's authors do: a pass decides all sure masks of a sliding window."""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Int

from mtjax.anysubset.filling.constrained import restrict
from mtjax.anysubset.filling.masks.reading import (
  PassContents,
  before_first_pass,
  read_context,
  read_masks,
  read_newest,
  sample_along,
  write,
)
from mtjax.anysubset.filling.state import FillState, Problem
from mtjax.anysubset.network import Network
from mtjax.anysubset.single_stream import check_two_streams
from mtjax.models import Config, Params
from mtjax.sampling.statistics import max_probability
from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class SlidingWindow:
  """Every pass decides all masks of a window that reach a threshold, and the surest in any case.

  The window has the open entries among the `size` positions from the first open one on, and slides
  with it (the sampler of SetDLM 2607.01775). What is compared is the probability of the most
  probable token at temperature 1, whatever the sampling is; with a constraint, of those tokens with
  which the blank can be completed. (First hitting, their other sampler,
  is `Sequential` in the order `staggered`, and exact.)

  Entries of one pass are sampled independently of each other, and which they are depends on the
  model: the distribution is changed. Decided entries are read in the order of passes, from left to
  right within one pass, so keys and values are cached exactly. A pass computes what the one before
  it decided, and `size` masks.
  """

  size: int = 16
  threshold: float = 0.9
  exactness = Exactness.APPROXIMATE
  decides_order = True

  def __post_init__(self):
    if self.size < 1:
      raise ValueError(f"size must be at least 1, got {self.size}")
    if not 0 < self.threshold <= 1:
      raise ValueError(f"threshold must be above 0, at most 1: got {self.threshold}")

  def check(self, config: Config) -> None:
    check_two_streams(config, type(self).__name__)

  def start(self, model: Network, params: Params, problem: Problem) -> FillState:
    state = before_first_pass(model, problem, self.size)
    return self._decided(model, params, problem, state, None, read_context(model, problem))

  def step(self, model: Network, params: Params, problem: Problem, state: FillState) -> FillState:
    place = jnp.broadcast_to(jnp.arange(problem.canvas.size), state.token.shape)
    reading = read_newest(problem, state, self.size, place)
    return self._decided(model, params, problem, state, state.cache, reading)

  def _decided(self, model, params, problem, state, cache, reading: PassContents) -> FillState:
    index = self._window(problem, state)
    state, logits = read_masks(model, params, problem, state, cache, reading, index)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    place = jnp.minimum(index, problem.canvas.size - 1)
    scored = restrict(problem.constraint, logits, state.token, state.known(), place)
    sure = jnp.where(index < problem.canvas.size, max_probability(scored), -jnp.inf)
    best = jnp.argmax(sure, axis=1)[:, None] == jnp.arange(index.shape[1])
    chosen = (index < problem.canvas.size) & (best | (sure >= math.log(self.threshold)))
    if problem.script is not None:
      chosen = problem.script.decided_in(state.forwards + 1, index)
    index = jnp.where(chosen, index, problem.canvas.size)
    token, logits = sample_along(problem, state, logits, index)
    return write(problem, state, index, token, logits)

  def _window(self, problem: Problem, state: FillState) -> Int[Array, "B W"]:
    """Returns the canvas indices of the window's open entries; the others are past the canvas."""
    open_ = problem.canvas.is_target & ~state.known()
    place = jnp.arange(problem.canvas.size)
    first = jnp.argmax(open_, axis=1)[:, None]
    index = jnp.where(open_ & (place < first + self.size), place, problem.canvas.size)
    return jnp.sort(index, axis=1)[:, : self.size]
