"""Self-speculation: one forward pass checks the canvases that the next passes are likely to see."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PyTree

from mtjax.diffusion.denoising.program import Denoising
from mtjax.diffusion.denoising.state import DenoiseState, Job
from mtjax.display.short import short_repr
from mtjax.models import Params
from mtjax.rounds import run


class LookaheadState(struct.PyTreeNode):
  """The stepwise loop's state, and what its next states are drafted from."""

  state: DenoiseState  # one that the stepwise loop has, too
  work: PyTree  # the logits of the pass that led to it
  forwards: Int[Array, " B"]  # forward passes that a row took part in

  __repr__ = short_repr

  @property
  def token(self) -> Int[Array, "B S"]:
    """The stepwise loop's canvases; likewise the other three, as every state has them."""
    return self.state.token

  @property
  def masked(self) -> Bool[Array, "B S"]:
    return self.state.masked

  @property
  def decided_at(self) -> Int[Array, "B S"]:
    return self.state.decided_at

  @property
  def passes(self) -> Int[Array, " B"]:
    return self.state.passes

  @property
  def finished(self) -> Bool[Array, " B"]:
    return self.state.finished


@dataclasses.dataclass(frozen=True)
class Lookahead:
  """A `rounds.Program` with the trajectory of the stepwise loop and fewer forward passes.

  Round: from state s_0, whose canvas has no logits yet, states s_1, ..., s_n are drafted by the
  policy itself, as if the logits of the pass before were those of each canvas. One forward computes
  the n + 1 canvases as one batch. Then the policy decides with their logits: the true state after
  s_0, and for as long as that is the drafted one, whose logits are there, the one after it. So a
  round makes 1 to n + 1 passes of the stepwise loop.

  Whatever the policy samples, a pass is a function of its canvas, the row's key and the number of
  the pass (`random_numbers`): the text and every `decided_at` are those of the stepwise loop at any
  temperature, as far as the network gives a canvas the same logits in a larger batch. Published for
  greedy decoding (FreeDave 2510.00294; self-speculation 2510.04147), with drafts in several
  branches; here there is one. The caches of finished or old keys lack those of drafted canvases.
  """

  stepwise: Denoising
  drafts: int

  def begin(self, inputs: tuple[Params, Job]) -> LookaheadState:
    params, job = inputs
    state = self.stepwise.begin(inputs)
    shapes = jax.eval_shape(lambda: self._work(params, job, state))
    work = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return LookaheadState(state, work, jnp.zeros_like(state.passes))

  def observe_begin(self, inputs: tuple[Params, Job]) -> tuple[LookaheadState, None]:
    return self.begin(inputs), None

  def stages(self, inputs: tuple[Params, Job]) -> run.Stages:
    params, job = inputs
    # A forward reads no constraint: decisions do, with the rows' own job.
    stacked_job = stack_rows(job.replace(constraint=None), self.drafts + 1)

    def draft(ahead: LookaheadState, _):
      def one(state, _):
        following = self._decide(job, state, ahead.work)
        return following, following

      drafted = jax.lax.scan(one, ahead.state, length=self.drafts)[1]
      return jax.tree.map(lambda s, more: jnp.concatenate([s[None], more]), ahead.state, drafted)

    def forward(ahead: LookaheadState, states):
      merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states)
      work = self._work(params, stacked_job, merged)
      split = jax.tree.map(lambda x: x.reshape(self.drafts + 1, -1, *x.shape[1:]), work)
      return states, split

    def verify(ahead: LookaheadState, pair):
      def one(carry, candidate):
        state, used = carry
        drafted, work = candidate
        valid = same_canvas(state, drafted) & ~state.finished
        following = self._decide(job, state, work)
        return (_select(valid, following, state), _select(valid, work, used)), None

      (state, work), _ = jax.lax.scan(one, (ahead.state, ahead.work), pair)
      forwards = ahead.forwards + ~ahead.state.finished
      return LookaheadState(state, work, forwards), None

    return {"draft": draft, "forward": forward, "verify": verify}

  def observe(self, observed: None) -> None:
    return observed

  def active(self, inputs: tuple[Params, Job], state: LookaheadState) -> Bool[Array, " B"]:
    return ~state.state.finished

  def _work(self, params: Params, job: Job, state: DenoiseState):
    return self.stepwise.forward(params, job, state)[:2]

  def _decide(self, job: Job, state: DenoiseState, work) -> DenoiseState:
    return self.stepwise.decide(job, state, *work)[0]


def same_canvas(state: Any, drafted: Any) -> Bool[Array, " B"]:
  """Returns true where the logits of a drafted state are those of the state itself."""
  return jnp.all(state.token == drafted.token, axis=1) & (state.block == drafted.block)


def stack_rows(job: Job, copies: int) -> Job:
  """Returns a job whose rows are those of the job, so many times one after the other."""

  def repeat(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.concatenate([x] * copies), tree)

  arrays = [field for field in dataclasses.fields(job) if field.metadata.get("pytree_node", True)]
  names = [field.name for field in arrays if field.name != "eos"]  # `eos` has no rows
  return job.replace(**{name: repeat(getattr(job, name)) for name in names})


def _select(which: Bool[Array, " B"], one: PyTree, other: PyTree) -> PyTree:
  """Returns the rows of `one` where `which` is true, and those of `other` elsewhere."""
  return jax.tree.map(
    lambda x, y: jnp.where(which.reshape(-1, *[1] * (x.ndim - 1)), x, y), one, other
  )
