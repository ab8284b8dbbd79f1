"""Filling as Eso-LM (B): many entries per pass in random order, then the rest one by one."""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Int

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
from mtjax.anysubset.orders import eso_ranks, eso_times
from mtjax.anysubset.single_stream import check_two_streams
from mtjax.models import Config, Params
from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class Eso:
  """The sampler of Eso-LM (B) (2506.01928): `steps` steps of diffusion, then one entry per pass.

  Of the targets a `share` (alpha_0 of the paper) is decided by diffusion: a mask is decided in the
  step from time t to s with probability (alpha_s - alpha_t) / (1 - alpha_t), alpha_t being
  share (1 - t), until t is 0. The numbers per step are a chain of binomials, and the order is
  random, both sampled before anything is decided; here each target has a time of its own, which is
  the same. What is left is decided from left to right, one entry per pass. A step that decides
  nothing takes no pass: there are as many passes as steps that are not empty, and targets left.

  A pass computes what the one before it decided, in its order, and the masks of its own step alone,
  in theirs. In a model with any_subset_rows "eso" each mask sees those before it, as the model was
  trained. Keys and values are cached exactly: decided entries see no mask. Entries of one pass are
  sampled independently of each other, so the distribution is that of no fixed order. The exact one
  in the same order is `SelfDraft` with the order "eso" (`mtjax.anysubset.orders`).

  A program has a fixed number of masks per pass, which is far above the mean number. A step that
  needs more is made in two passes.
  """

  steps: int = 16
  share: float = 0.5
  exactness = Exactness.APPROXIMATE
  decides_order = True

  def __post_init__(self):
    if self.steps < 1:
      raise ValueError(f"steps must be at least 1, got {self.steps}")
    if not 0 <= self.share <= 1:
      raise ValueError(f"share must be within 0 to 1, got {self.share}")

  def check(self, config: Config) -> None:
    check_two_streams(config, type(self).__name__)

  def start(self, model: Network, params: Params, problem: Problem) -> FillState:
    state = before_first_pass(model, problem, self._width(problem))
    return self._decided(model, params, problem, state, None, read_context(model, problem))

  def step(self, model: Network, params: Params, problem: Problem, state: FillState) -> FillState:
    rank = eso_ranks(problem.canvas, problem.key, self.share)
    reading = read_newest(problem, state, self._width(problem), rank)
    return self._decided(model, params, problem, state, state.cache, reading)

  def _decided(self, model, params, problem, state, cache, reading: PassContents) -> FillState:
    index = self._masks(problem, state)
    state, logits = read_masks(model, params, problem, state, cache, reading, index)
    token, logits = sample_along(problem, state, logits, index)
    return write(problem, state, index, token, logits)

  def _masks(self, problem: Problem, state: FillState) -> Int[Array, "B W"]:
    """Returns the canvas indices of this pass's masks in their order; others are past the canvas.

    They are those of the step of the first open entry.
    """
    canvas, size = problem.canvas, problem.canvas.size
    rank = eso_ranks(canvas, problem.key, self.share)
    time = eso_times(canvas, problem.key)
    step = jnp.floor(time / max(self.share, 1e-9) * self.steps)
    # Each entry that is left over is a step of its own.
    step = jnp.where(time < self.share, step, self.steps + rank)
    open_ = canvas.is_target & ~state.known()
    now = jnp.min(jnp.where(open_, step, jnp.inf), axis=1, keepdims=True)
    mine = open_ & (step == now)
    order = jnp.argsort(jnp.where(mine, rank, size + 1), axis=1, stable=True)
    chosen = jnp.arange(size) < jnp.sum(mine, axis=1, keepdims=True)
    return jnp.where(chosen, order, size)[:, : self._width(problem)]

  def _width(self, problem: Problem) -> int:
    """Returns the static number of masks of a pass."""
    targets = problem.order.shape[1]
    mean = targets * self.share / self.steps
    return max(1, min(targets, math.ceil(mean + 8 * math.sqrt(mean) + 4)))
