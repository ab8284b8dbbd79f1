"""A pipeline of blocks: the next ones begin while a block is still being decided (D2F)."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.candidates import CanvasCandidates, candidates_of, sample_candidates
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job, Window, unplanned_view, window_of
from mtjax.diffusion.denoising.traces import TracedPass, sampled_log_prob
from mtjax.diffusion.protocols import only_written
from mtjax.diffusion.ranking import first
from mtjax.diffusion.rule import PROBABILITY, SHARE, PerRow, PerRowRule, Range, rule
from mtjax.diffusion.view import View
from mtjax.display.short import short_repr
from mtjax.models import Params
from mtjax.rounds import run
from mtjax.sampling.logits import Rules, process
from mtjax.types import Exactness


@rule
class Pipeline(PerRowRule):
  """When blocks begin, and which of their positions a pass decides (D2F 2508.09192, section 4.3).

  A pass decides every masked position of the blocks in flight whose candidate has a probability
  above `threshold`. A block begins, with all its positions masked, when the share of decided
  positions of the one before reaches `add`, at most one block per pass. It is fully activated when
  that share reaches `activate`, as the first block is: then it decides its best position, if none
  reaches the threshold.
  """

  add: PerRow = 0.1
  activate: PerRow = 0.95
  threshold: PerRow = 0.9
  ranges: ClassVar[dict[str, Range]] = {
    "add": SHARE,
    "activate": PROBABILITY,
    "threshold": PROBABILITY,
  }
  exactness = Exactness.APPROXIMATE
  reason = (
    "blocks are decided before the blocks that they follow are final, and the tokens of one pass "
    "are sampled independently of each other"
  )


Inputs = tuple[Params, Job, Pipeline]


class PipelineState(struct.PyTreeNode):
  """Canvases in progress, with blocks in flight."""

  token: Int[Array, "B S"]  # masked positions hold the mask
  masked: Bool[Array, "B S"]
  decided_at: Int[Array, "B S"]  # the pass that decided a position, from 1; 0: prompt, or mask
  front: Int[Array, " B"]  # number of the first block that is not decided
  begun: Int[Array, " B"]  # number of blocks that have begun
  passes: Int[Array, " B"]
  finished: Bool[Array, " B"]

  __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class Pipelining:
  """A `rounds.Program` whose inputs are (params, job, pipeline).

  A pass computes the canvas as far as blocks have begun: of a block that has not, nothing is seen.
  """

  network: MaskedNetwork
  block_length: int
  in_flight: int  # largest number of blocks from the first undecided one to the last that began
  score: Callable[[Array, Rules], Array]

  def begin(self, inputs: Inputs) -> PipelineState:
    _, job, _ = inputs
    batch, size = job.prompt.shape
    place, zero = jnp.arange(size), jnp.zeros(batch, jnp.int32)
    masked = (place >= job.start[:, None]) & (place < job.end[:, None])
    return PipelineState(
      token=jnp.where(masked, self.network.mask_id, job.prompt),
      masked=masked,
      decided_at=jnp.zeros((batch, size), jnp.int32),
      front=zero,
      begun=zero + 1,
      passes=zero,
      finished=jnp.zeros(batch, bool),
    )

  def observe_begin(self, inputs: Inputs) -> tuple[PipelineState, None]:
    return self.begin(inputs), None

  def stages(self, inputs: Inputs) -> run.Stages:
    params, job, pipeline = inputs

    def enter(state: PipelineState, _):
      return self._entered(job, pipeline, state)

    def forward(state: PipelineState, begun):
      return begun, self._logits(params, job, state, begun)

    def decide(state: PipelineState, work):
      begun, logits = work
      return self._decided(job, pipeline, state.replace(begun=begun), logits)

    return {"enter": enter, "forward": forward, "decide": decide}

  def observe(self, observed: TracedPass) -> TracedPass:
    return observed

  def active(self, inputs: Inputs, state: PipelineState) -> Bool[Array, " B"]:
    return ~state.finished

  def follow(
    self, inputs: Inputs, state: PipelineState, seen: TracedPass
  ) -> tuple[PipelineState, Float[Array, "B W"]]:
    """Returns the state after a pass that decides what a traced one did, and log-probabilities."""
    params, job, pipeline = inputs
    begun = self._entered(job, pipeline, state)
    logits = self._logits(params, job, state, begun)
    state = state.replace(begun=begun)
    window, _ = self._window(job, state, begun)
    view = self._view(job, state, window, logits)
    candidates = candidates_of(view, jnp.asarray(seen.token))
    state = self._written(job, state, window, view, candidates, seen.revision.written)
    return state, sampled_log_prob(job.rules, candidates, seen.revision)

  def _logits(self, params, job: Job, state: PipelineState, begun: Int[Array, " B"]):
    window, end = self._window(job, state, begun)
    rows = self.network.sources(window.index)
    output = self.network.model.forward(params, self.network.canvas(state.token, end), None, rows)
    return self.network.logits(output)

  def _entered(self, job: Job, pipeline: Pipeline, state: PipelineState) -> Int[Array, " B"]:
    """Returns the number of blocks that have begun, with the one that begins now."""
    last = window_of(job, state.begun - 1, self.block_length)
    ready = _progress(job, state, last) >= pipeline.add
    exists = job.first + state.begun * self.block_length < job.end
    fits = state.begun - state.front < self.in_flight
    ended = jnp.any(_is_eos(job, state), axis=1)
    return state.begun + (ready & exists & fits & ~ended & ~state.finished)

  def _window(self, job: Job, state: PipelineState, begun: Int[Array, " B"]):
    """Returns the positions of the blocks in flight, and where the last of them ends."""
    size = self.in_flight * self.block_length
    index = job.first[:, None] + state.front[:, None] * self.block_length + jnp.arange(size)
    end = jnp.minimum(job.first + begun * self.block_length, job.end)
    return Window(jnp.clip(index, 0, job.size - 1), index < end[:, None]), end

  def _decided(
    self, job: Job, pipeline: Pipeline, state: PipelineState, logits: Float[Array, "B W V"]
  ) -> tuple[PipelineState, TracedPass]:
    window, end = self._window(job, state, state.begun)
    view = self._view(job, state, window, logits)
    candidates = sample_candidates(view)
    probability = jnp.exp(candidates.confidence)
    chosen = view.open & (probability > pipeline.threshold[:, None])
    for number in range(self.in_flight):
      here = slice(number * self.block_length, (number + 1) * self.block_length)
      before = window_of(job, state.front + number - 1, self.block_length)
      activated = _progress(job, state, before) >= pipeline.activate
      forced = activated & ~jnp.any(chosen[:, here], axis=1)
      best = first(probability[:, here], view.open[:, here], forced.astype(jnp.int32))
      chosen = chosen.at[:, here].set(chosen[:, here] | best)
    revision = only_written(chosen)
    seen = TracedPass(
      canvas=state.token,
      end=end,
      index=window.index,
      token=candidates.token,
      revision=revision,
      log_prob=sampled_log_prob(job.rules, candidates, revision),
    )
    return self._written(job, state, window, view, candidates, chosen), seen

  def _written(
    self,
    job: Job,
    state: PipelineState,
    window: Window,
    view: View,
    candidates: CanvasCandidates,
    chosen: Bool[Array, "B W"],
  ) -> PipelineState:
    """Returns the state after a pass that decides the chosen positions."""
    active = ~state.finished
    token = jnp.where(chosen, candidates.token, view.token)
    number = state.passes[:, None] + 1
    state = state.replace(
      token=window.write(state.token, token),
      masked=window.write(state.masked, view.masked & ~chosen),
      decided_at=window.write(
        state.decided_at, jnp.where(chosen, number, window.read(state.decided_at))
      ),
      passes=state.passes + active,
    )
    return self._advanced(job, state, active)

  def _advanced(self, job: Job, state: PipelineState, active: Bool[Array, " B"]) -> PipelineState:
    """Returns the state with its front at the first block that is not decided."""

    def step(front, _):
      block = window_of(job, front, self.block_length)
      open_ = jnp.any(block.read(state.masked) & block.inside, axis=1)
      return front + (~open_ & (front < state.begun)), None

    front, _ = jax.lax.scan(step, state.front, length=self.in_flight)
    whole = job.first + front * self.block_length
    place = jnp.arange(job.size)
    ended = jnp.any(_is_eos(job, state) & (place < whole[:, None]), axis=1)
    done = active & ((whole >= job.end) | ended)
    front = jnp.where(active, front, state.front)
    return state.replace(front=front, finished=state.finished | done)

  def _view(self, job: Job, state: PipelineState, window: Window, logits) -> View:
    masked = window.read(state.masked) & window.inside & ~state.finished[:, None]
    processed, scored = process(logits, job.rules), self.score(logits, job.rules)
    token, passes = window.read(state.token), state.passes
    return unplanned_view(job, window, token, masked, passes, processed, scored)


def _progress(job: Job, state: PipelineState, block: Window) -> Float[Array, " B"]:
  """Returns the share of a block's generated positions that are decided; 1 where it has none."""
  generated = block.inside & (block.index >= job.start[:, None])
  open_ = generated & block.read(state.masked)
  total = jnp.sum(generated, axis=1)
  return 1.0 - jnp.sum(open_, axis=1) / jnp.maximum(total, 1)


def _is_eos(job: Job, state: PipelineState) -> Bool[Array, "B S"]:
  """Returns the generated positions that hold an end-of-sequence token."""
  generated = jnp.arange(job.size) >= job.start[:, None]
  return generated & ~state.masked & jnp.any(state.token[:, :, None] == job.eos, axis=2)
