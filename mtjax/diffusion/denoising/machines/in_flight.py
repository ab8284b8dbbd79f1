"""The rounds of machines with several blocks in flight: D2F's pipeline, and block buffers."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.diffusion.candidates import CanvasCandidates, candidates_of, sample_candidates
from mtjax.diffusion.denoising.constrained import agreed, restrict, scored_along
from mtjax.diffusion.denoising.machines.blocks import (
  BlockDecision,
  Blocks,
  FlightPolicy,
  progress_of,
)
from mtjax.diffusion.denoising.machines.passes import FlightPasses
from mtjax.diffusion.denoising.machines.protocol import Score
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job, Window, unplanned_view, window_of
from mtjax.diffusion.denoising.traces import Followed, TracedPass, sampled_log_prob
from mtjax.diffusion.protocols import only_written
from mtjax.diffusion.view import Revision, View
from mtjax.display.short import short_repr
from mtjax.models import Params
from mtjax.rounds import run
from mtjax.sampling.logits import process

Inputs = tuple[Params, Job, FlightPolicy]


class FlightState(struct.PyTreeNode):
  """Canvases in progress, with blocks in flight; N is the largest number of blocks of a canvas."""

  token: Int[Array, "B S"]  # masked positions hold the mask
  masked: Bool[Array, "B S"]
  decided_at: Int[Array, "B S"]  # the pass that decided a position last, from 1; 0: prompt, or mask
  front: Int[Array, " B"]  # number of the first block of the window
  begun: Int[Array, " B"]  # number of blocks that have begun
  final: Bool[Array, "B N"]  # blocks that do not change any more
  post: Int[Array, "B N"]  # passes that a block had after its last mask
  stable: Float[Array, " B"]  # share of the last block's tokens that the last pass gave again
  passes: Int[Array, " B"]
  finished: Bool[Array, " B"]
  kept: PyTree  # of the passes: keys
  memory: PyTree  # of the policy

  __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class BlocksInFlight(Followed):
  """A `rounds.Program` whose inputs are (params, job, policy).

  A pass works on a window of `in_flight` blocks from the first one that is not done with. At most
  one block begins before a pass, of which no earlier pass has seen anything.
  """

  network: MaskedNetwork
  in_flight: int  # K
  score: Score
  passes: FlightPasses

  def begin(self, inputs: Inputs) -> FlightState:
    params, job, policy = inputs
    batch, size = job.prompt.shape
    place, zero = jnp.arange(size), jnp.zeros(batch, jnp.int32)
    masked = (place >= job.start[:, None]) & (place < job.end[:, None])
    blocks = size // self._length + self.in_flight
    return FlightState(
      token=jnp.where(masked, self.network.mask_id, job.prompt),
      masked=masked,
      decided_at=jnp.zeros((batch, size), jnp.int32),
      front=zero,
      begun=zero + 1,
      final=jnp.zeros((batch, blocks), bool),
      post=jnp.zeros((batch, blocks), jnp.int32),
      stable=jnp.ones(batch, jnp.float32),
      passes=zero,
      finished=jnp.zeros(batch, bool),
      kept=self.passes.start(self.network, params, job),
      memory=policy.start(batch, size),
    )

  def observe_begin(self, inputs: Inputs) -> tuple[FlightState, None]:
    return self.begin(inputs), None

  def stages(self, inputs: Inputs) -> run.Stages:
    params, job, policy = inputs

    def enter(state: FlightState, _):
      return self._entered(job, policy, state)

    def forward(state: FlightState, begun):
      return begun, *self._logits(params, job, policy, state, begun)

    def decide(state: FlightState, work):
      begun, logits, kept = work
      return self._decided(job, policy, state.replace(begun=begun, kept=kept), logits)

    return {"enter": enter, "forward": forward, "decide": decide}

  def observe(self, observed: TracedPass) -> TracedPass:
    return observed

  def active(self, inputs: Inputs, state: FlightState) -> Bool[Array, " B"]:
    return ~state.finished

  def follow(
    self, inputs: Inputs, state: FlightState, seen: TracedPass
  ) -> tuple[FlightState, Float[Array, "B W"]]:
    """Returns the state after a pass that decides what a traced one did, and log-probabilities."""
    params, job, policy = inputs
    begun = -((job.first - jnp.asarray(seen.end)) // self._length)
    begun = jnp.where(state.finished, state.begun, begun)
    logits, kept = self._logits(params, job, policy, state, begun)
    state = state.replace(begun=begun, kept=kept)
    window, _ = self._window(job, state, begun)
    blocks = self._blocks(job, state, window, logits)
    candidates = candidates_of(blocks.view, jnp.asarray(seen.token))
    seen_there = (seen.revision.written, seen.revision.edited, seen.settled)
    decision = BlockDecision(*map(jnp.asarray, seen_there))
    candidates = scored_along(job, state, window, logits, candidates, seen.revision, self.score)
    state = self._written(job, policy, state, window, blocks, candidates, decision)
    return state, sampled_log_prob(job.rules, candidates, seen.revision)

  @property
  def _length(self) -> int:
    """The number of positions of a block."""
    return self.network.block_length

  def _logits(self, params, job: Job, policy: FlightPolicy, state: FlightState, begun):
    window, end = self._window(job, state, begun)
    numbers = state.front[:, None] + jnp.arange(self.in_flight)
    final = jnp.take_along_axis(state.final, numbers, axis=1) & ~state.finished[:, None]
    soften = policy.soften(self.network, params, state.memory)
    return self.passes.logits(
      self.network, params, state.token, state.kept, window, end, final, soften
    )

  def _entered(self, job: Job, policy: FlightPolicy, state: FlightState) -> Int[Array, " B"]:
    """Returns the number of blocks that have begun, with the one that begins now."""
    last = window_of(job, state.begun - 1, self._length)
    ready = policy.admits(progress_of(job, last, last.read(state.masked)), state.stable)
    exists = job.first + state.begun * self._length < job.end
    fits = state.begun - state.front < self.in_flight
    ended = jnp.any(_is_eos(job, state), axis=1)
    return state.begun + (ready & exists & fits & ~ended & ~state.finished)

  def _window(self, job: Job, state: FlightState, begun: Int[Array, " B"]):
    """Returns the positions of the blocks in flight, and where the last of them ends."""
    size = self.in_flight * self._length
    index = job.first[:, None] + state.front[:, None] * self._length + jnp.arange(size)
    end = jnp.minimum(job.first + begun * self._length, job.end)
    return Window(jnp.clip(index, 0, job.size - 1), index < end[:, None]), end

  def _blocks(self, job: Job, state: FlightState, window: Window, logits) -> Blocks:
    """Returns what the policy sees of a pass."""
    masked = window.read(state.masked) & window.inside & ~state.finished[:, None]
    logits = restrict(job, state, window, logits)
    processed, scored = process(logits, job.rules), self.score(logits, job.rules)
    token, passes = window.read(state.token), state.passes
    view = unplanned_view(job, window, token, masked, passes, processed, scored)
    numbers = state.front[:, None] + jnp.arange(self.in_flight)
    final = jnp.take_along_axis(state.final, numbers, axis=1)
    generated = window.inside & (window.index >= job.start[:, None]) & ~state.finished[:, None]
    before = jnp.stack([self._progress(job, state, k - 1) for k in range(self.in_flight)], axis=1)
    return Blocks(
      view=view.replace(decided=generated & ~masked & ~self._wide(final)),
      before=before,
      post=jnp.take_along_axis(state.post, numbers, axis=1) + self._has_none(masked),
    )

  def _has_none(self, masked: Bool[Array, "B W"]) -> Bool[Array, "B K"]:
    """Returns the blocks without a mask."""
    return ~jnp.any(masked.reshape(masked.shape[0], self.in_flight, self._length), axis=2)

  def _progress(self, job: Job, state: FlightState, number: int) -> Float[Array, " B"]:
    window = window_of(job, state.front + number, self._length)
    return progress_of(job, window, window.read(state.masked))

  def _wide(self, of_blocks: Bool[Array, "B K"]) -> Bool[Array, "B W"]:
    """Returns what is true of blocks for each of their positions."""
    return jnp.repeat(of_blocks, self._length, axis=1)

  def _decided(
    self, job: Job, policy: FlightPolicy, state: FlightState, logits: Float[Array, "B W V"]
  ) -> tuple[FlightState, TracedPass]:
    window, end = self._window(job, state, state.begun)
    blocks = self._blocks(job, state, window, logits)
    candidates = sample_candidates(blocks.view)
    decision = policy.decide(blocks, candidates)
    revision: Revision = only_written(decision.written).replace(edited=decision.edited)
    candidates = agreed(job, state, window, blocks.view, logits, candidates, revision, self.score)
    seen = TracedPass(
      canvas=state.token,
      end=end,
      index=window.index,
      token=candidates.token,
      revision=revision,
      log_prob=sampled_log_prob(job.rules, candidates, revision),
      settled=decision.settled,
    )
    return self._written(job, policy, state, window, blocks, candidates, decision), seen

  def _written(
    self,
    job: Job,
    policy: FlightPolicy,
    state: FlightState,
    window: Window,
    blocks: Blocks,
    candidates: CanvasCandidates,
    decision: BlockDecision,
  ) -> FlightState:
    """Returns the state after a pass that decides and edits the chosen positions."""
    view: View = blocks.view
    new = decision.written | decision.edited
    masked = view.masked & ~decision.written
    memory = policy.remember(state.memory, window, blocks, candidates, decision)
    state = state.replace(
      token=window.write(state.token, jnp.where(new, candidates.token, view.token)),
      masked=window.write(state.masked, masked),
      decided_at=window.write(
        state.decided_at,
        jnp.where(new, state.passes[:, None] + 1, window.read(state.decided_at)),
      ),
      memory=memory,
    )
    return self._advanced(job, state, window, blocks, candidates, masked, decision.settled)

  def _advanced(
    self,
    job: Job,
    state: FlightState,
    window: Window,
    blocks: Blocks,
    candidates: CanvasCandidates,
    masked: Bool[Array, "B W"],
    settled: Bool[Array, "B K"],
  ) -> FlightState:
    """Returns the state with the blocks that are final marked, and the window at the next ones."""
    active = ~state.finished
    numbers = state.front[:, None] + jnp.arange(self.in_flight)
    begun = (numbers < state.begun[:, None]) & active[:, None]
    rows = jnp.arange(numbers.shape[0])[:, None]
    final = state.final.at[rows, numbers].max(begun & self._has_none(masked) & settled)
    leaves = _leading(self.passes.leaving(state.final, final), state.front, self.in_flight)
    whole = _leading(final, state.front, self.in_flight)
    whole_end = job.first + (state.front + whole) * self._length
    ended = jnp.any(_is_eos(job, state) & (jnp.arange(job.size) < whole_end[:, None]), axis=1)
    done = active & ((whole_end >= job.end) | ended)
    return state.replace(
      final=final,
      post=state.post.at[rows, numbers].add(begun & self._has_none(blocks.view.masked)),
      stable=jnp.where(active, self._stability(state, window, blocks, candidates), state.stable),
      front=state.front + jnp.where(active, leaves, 0),
      passes=state.passes + active,
      finished=state.finished | done,
    )

  def _stability(self, state: FlightState, window: Window, blocks: Blocks, candidates):
    """Returns the share of the last block's decided tokens that are their candidates; 1: none."""
    place = jnp.arange(window.index.shape[1]) // self._length
    last = place == (state.begun - 1 - state.front)[:, None]
    known = blocks.view.decided & last
    same = known & (candidates.token == blocks.view.token)
    number = jnp.sum(known, axis=1)
    return jnp.where(number > 0, jnp.sum(same, axis=1) / jnp.maximum(number, 1), 1.0)


def _leading(final: Bool[Array, "B N"], front: Int[Array, " B"], width: int) -> Int[Array, " B"]:
  """Returns the number of blocks from the front on that are final, one after the other."""
  numbers = front[:, None] + jnp.arange(width)
  chain = jnp.take_along_axis(final, numbers, axis=1).astype(jnp.int32)
  return jnp.sum(jax.lax.cumprod(chain, axis=1), axis=1)


def _is_eos(job: Job, state: FlightState) -> Bool[Array, "B S"]:
  """Returns the generated positions that hold an end-of-sequence token."""
  place = jnp.arange(job.size)
  # Entries after the canvas hold token 0, which may be an end token.
  generated = (place >= job.start[:, None]) & (place < job.end[:, None])
  return generated & ~state.masked & jnp.any(state.token[:, :, None] == job.eos, axis=2)
