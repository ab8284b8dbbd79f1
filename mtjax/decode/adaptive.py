"""Speculates as far as it pays: rounds of several sizes, plain ones among them, in one program."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.decode.cutting import cut, padded_decision
from mtjax.decode.history import TreesObserved
from mtjax.decode.speculative import Speculative, SpeculativeState
from mtjax.draft import Context
from mtjax.models import Model, Params
from mtjax.rounds.run import Stages
from mtjax.rounds.state import DecodeState, Request
from mtjax.types import Draft, DraftScheme

# Parts of a drafter's tree that a round may verify, where drafts come with their survival.
_PARTS = (0.5, 0.75, 1.0)
# Drafting goes on as long as the speed is at least so much of that of plain decoding.
_ENOUGH = 0.98
# Drafting is tried again after at most so many times `patience` rounds.
_PATIENCE_GROWS = 4


class AdaptiveParams(struct.PyTreeNode):
  """Parameters of `Adaptive`: what rounds cost here, and the drafter's parameters."""

  # The time of a round of each of `Adaptive.parts`, in rounds without drafts.
  costs: Float[Array, " S"]
  drafter: PyTree


class AdaptiveState(struct.PyTreeNode):
  speculative: SpeculativeState
  speed: Float[Array, ""]  # of rounds with drafts, relative to plain ones: a running mean
  wait: Int[Array, ""]  # rounds until the next try, when drafting does not pay
  pause: Int[Array, ""]  # first value of `wait` after the next try


@dataclasses.dataclass(frozen=True)
class Adaptive:
  """`speculative`, with as many entries per round as pay, and plain rounds while nothing pays.

  The parameters (`params`) hold what a round of each size costs (`mtjax.decode.costs`). A round
  verifies the first n nodes of its tree. Of the sizes in `parts`, n is the one with the largest
  expected speed, (1 + sum of `Draft.survival` over nodes 1 to n - 1) / cost(n), where the sum is a
  mean over active rows. With n = 1 the round is a plain one. Drafts without a survival are verified
  whole: they may be sampled, and a size that depends on them would change the distribution.

  While the running mean of the speed, emitted tokens / cost(n), is below 0.98 of that of plain
  decoding, nothing is drafted for `patience` rounds, then for twice as many, up to four times as
  many. The mean starts at `hope` and forgets with weight `memory`. One choice is made per batch. It
  depends on past rounds and on drafts that are not sampled, so exactness is that of `speculative`.

  Raises ValueError for settings out of range, and for a drafter that samples and estimates.
  """

  speculative: Speculative
  patience: int = 16
  memory: float = 0.1
  hope: float = 1.1

  def __post_init__(self):
    if self.patience < 1:
      raise ValueError(f"patience must be at least 1, got {self.patience}")
    if not 0 < self.memory <= 1:
      raise ValueError(f"memory must be above 0 and at most 1, got {self.memory}")
    if not self.hope > 0:
      raise ValueError(f"hope must be above 0, got {self.hope}")
    drafter = self.speculative.drafter
    if drafter.estimates_survival and drafter.scheme is not DraftScheme.DELTA:
      raise ValueError(
        f"{type(drafter).__name__} samples its drafts and estimates their survival: the number of "
        "drafts that are verified must not depend on a sample, so estimates_survival must be false"
      )

  @property
  def parts(self) -> tuple[float, ...]:
    """The sizes of rounds with drafts, as parts of the drafter's tree; 0 is the root alone."""
    return (0.0, *_PARTS) if self._estimates else (1.0,)

  def params(self, cost: float | Sequence[float], drafter: PyTree = None) -> AdaptiveParams:
    """Returns the parameters of the method.

    cost: of a round of each of `parts`, in rounds without drafts, as `measure_costs` returns them;
    or of a whole round, with that of the root alone as 1 and the others on the line between them.
    Raises ValueError for costs that are not above 0, and for another number of them.
    """
    costs = np.asarray(cost, np.float32)
    if not (np.all(costs > 0) and np.all(np.isfinite(costs))):
      raise ValueError(f"cost must be above 0, got {cost}")
    if not costs.ndim:
      costs = 1 + (costs - 1) * np.array(self.parts, np.float32)
    if costs.shape != (len(self.parts),):
      raise ValueError(
        f"give one cost, or one for each of the {len(self.parts)} sizes of a round, got {cost}"
      )
    return AdaptiveParams(jnp.asarray(costs), drafter)

  def check(self, model: Model) -> None:
    self.speculative.check(model)

  def start(
    self,
    method_params: AdaptiveParams,
    prompt: Int[Array, "B P"],
    length: Int[Array, " B"],
    *,
    capacity: int,
    max_new: int,
  ) -> AdaptiveState:
    if not isinstance(method_params, AdaptiveParams):
      raise ValueError(
        "the parameters of Adaptive hold what rounds cost: give method_params=method.params(cost, "
        "parameters of the drafter)"
      )
    state = self.speculative.start(
      method_params.drafter, prompt, length, capacity=capacity, max_new=max_new
    )
    return AdaptiveState(state, jnp.float32(self.hope), jnp.int32(0), jnp.int32(self.patience))

  def stages(
    self, model: Model, params: Params, method_params: AdaptiveParams, request: Request
  ) -> Stages:
    """Returns propose, forward and verify at once, for one choice is about both, and commit."""
    inner, costs = self.speculative, method_params.costs

    def propose(state: DecodeState, _):
      kept = state.method
      context = Context(request, state.last, state.count, state.active, state.cache)
      drafter = kept.speculative.drafter
      propose = functools.partial(inner.drafter.propose, method_params.drafter)
      trying = (kept.speed >= _ENOUGH) | (kept.wait <= 0)
      trying &= jnp.any(jnp.isfinite(costs))  # what costs are measured in does not draft at all
      shape = jax.eval_shape(propose, drafter, context)[0]
      return jax.lax.cond(
        trying,
        lambda: propose(drafter, context),
        lambda: (_none(shape, state.last), drafter),
      )

    def decide(state: DecodeState, proposed):
      draft, drafter = proposed
      size, cost = self._chosen(draft, state.active, request.limit - state.count, costs)
      state = state.replace(method=state.method.speculative)

      def of_size(size):
        decision = inner.decide(model, params, request, state, cut(draft, size))
        return padded_decision(decision, draft.tree)

      sizes = sorted({1, *self._sizes(draft)})
      place = jnp.searchsorted(jnp.array(sizes), size)
      decision = jax.lax.switch(place, [functools.partial(of_size, size) for size in sizes])
      return draft, drafter, decision, cost

    def commit(state: DecodeState, decided):
      draft, *judged, cost = decided
      kept, rows = state.method, jnp.maximum(jnp.sum(state.active), 1)
      after, observed = inner.keep(request, state.replace(method=kept.speculative), draft, *judged)
      drafted = _any_draft(draft, state.active)
      speed = jnp.sum(after.count - state.count) / rows / cost
      speed = jnp.where(drafted, kept.speed + self.memory * (speed - kept.speed), kept.speed)
      tries = self.next_try(kept.wait, kept.pause, drafted, pays=speed >= _ENOUGH)
      return after.replace(method=AdaptiveState(after.method, speed, *tries)), observed

    return {"propose": propose, "forward and verify": decide, "commit": commit}

  def observe(self, observed: PyTree) -> TreesObserved:
    return self.speculative.observe(observed)

  def next_try(
    self,
    wait: Int[Array, ""],
    pause: Int[Array, ""],
    drafted: Bool[Array, ""],
    pays: Bool[Array, ""],
  ) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Returns the rounds until the next try, and until the one after it."""
    # A try without a draft cost next to nothing and taught nothing.
    wait = jnp.where(drafted, pause - 1, jnp.maximum(wait - 1, 0))
    longer = jnp.minimum(2 * pause, _PATIENCE_GROWS * self.patience)
    pause = jnp.where(drafted, longer, pause)
    return wait, jnp.where(pays, self.patience, pause)

  def counters(self, kept: AdaptiveState, rounds: int) -> dict[str, Any]:
    return self.speculative.counters(kept.speculative, rounds)

  @property
  def _estimates(self) -> bool:
    return self.speculative.drafter.estimates_survival

  def _sizes(self, draft: Draft) -> list[int]:
    return [max(1 + (part > 0), round(part * draft.tree.size)) for part in self.parts]

  def _chosen(
    self,
    draft: Draft,
    active: Bool[Array, " B"],
    remaining: Int[Array, " B"],
    costs: Float[Array, " S"],
  ) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Returns the size of this round, and its cost. remaining: tokens that a row may still emit."""
    sizes = jnp.array(self._sizes(draft))
    if draft.survival is None:
      # What is cut must not depend on what was sampled, so the number of drafts does not count.
      return jnp.where(_any_draft(draft, active), sizes[-1], 1), costs[-1]
    tree, rows = draft.tree, jnp.maximum(jnp.sum(active), 1)
    there = tree.valid & (tree.depth <= remaining[:, None]) & active[:, None]
    survival = jnp.sum(jnp.where(there, draft.survival, 0), axis=0) / rows
    expected = 1 + jnp.cumsum(survival.at[0].set(0))[sizes - 1]
    best = jnp.argmax(expected / costs)
    return sizes[best], costs[best]


def _any_draft(draft: Draft, active: Bool[Array, " B"]) -> Bool[Array, ""]:
  return jnp.any(draft.tree.valid[:, 1:] & active[:, None])


def _none(shape: Draft, last: Int[Array, " B"]) -> Draft:
  """Returns an empty draft of that shape."""
  draft = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
  tree = draft.tree
  root = jnp.arange(tree.size) == 0
  return draft.replace(
    tree=tree.replace(
      token=jnp.where(root, last[:, None], 0).astype(tree.token.dtype),
      parent=jnp.where(root, -1, tree.parent),
      valid=jnp.broadcast_to(root, tree.valid.shape),
    )
  )
