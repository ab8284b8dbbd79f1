"""Fast-dLLM v2: blocks of sub-blocks, one token of each block from the pass that commits the last.

A shifted block-causal model: the entry before a position predicts it, inside a block by what the
whole block knows.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.diffusion.candidates import CanvasCandidates, candidates_of, sample_candidates
from mtjax.diffusion.denoising.constrained import agreed, restrict, scored_along
from mtjax.diffusion.denoising.machines.protocol import Score
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job, Window, has_end, unplanned_view
from mtjax.diffusion.denoising.traces import Followed, TracedPass, sampled_log_prob
from mtjax.diffusion.protocols import only_written
from mtjax.diffusion.ranking import first
from mtjax.diffusion.view import View
from mtjax.display.short import short_repr
from mtjax.models import Params
from mtjax.rounds import run
from mtjax.sampling.logits import process
from mtjax.types import LayerKV

# The last: `SubBlocks`, whose thresholds are arrays.
Inputs = tuple[Params, Job, Any]


class SubBlockState(struct.PyTreeNode):
  """Canvases in progress. A row is about to commit its block, or to decide in a sub-block of it."""

  token: Int[Array, "B S"]  # masked positions hold the mask
  masked: Bool[Array, "B S"]
  decided_at: Int[Array, "B S"]  # the pass that decided a position, from 1; 0: prompt, or mask
  block: Int[Array, " B"]  # number of the block, counted from position 0
  fresh: Bool[Array, " B"]  # no pass has been made over the block: `stale` is of another one
  cache: KVCache  # of finished blocks, exact
  stale: tuple[LayerKV, ...]  # of the block's entries, from the last pass over all of them
  passes: Int[Array, " B"]
  whole_passes: Int[Array, " B"]  # passes over a block with masks: to begin, or to refresh
  commits: Int[Array, " B"]  # passes over a finished block
  finished: Bool[Array, " B"]

  __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class SubBlockRounds(Followed):
  """A `rounds.Program` whose inputs are (params, job, settings).

  A row's next pass is one of three:

  * the block is decided: its entries are computed once more and committed, and the last of them
    predicts the next block's first token. So a block costs one pass more, and gets one token less
    from the others.
  * the block begins, or the first position of its first undecided sub-block is a mask, which the
    entry before that sub-block predicts: the whole block is computed, over exact keys.
  * otherwise the sub-block alone is computed, over the keys that the other sub-blocks had in the
    last pass over the block: an approximation (the dual cache of Fast-dLLM, inside a block). That
    pass was made in this sub-block, whose first position was a mask before: the others are final,
    or masks, since then, but their keys do not know what the sub-block becomes.

  The last two decide the masks of the sub-block whose probability is above the threshold, and the
  best one in any case.
  """

  network: MaskedNetwork
  sub_block: int
  score: Score

  @property
  def size(self) -> int:
    """The number of positions of a block."""
    return self.network.block_length

  def begin(self, inputs: Inputs) -> SubBlockState:
    params, job, _ = inputs
    batch, size = job.prompt.shape
    place, zero = jnp.arange(size), jnp.zeros(batch, jnp.int32)
    masked = (place >= job.start[:, None]) & (place < job.end[:, None])
    token = jnp.where(masked, self.network.mask_id, job.prompt)
    # A prompt of whole blocks: the commit of its last block predicts the first token.
    block = job.start // self.size - (job.start % self.size == 0)
    none = jnp.zeros((batch, 0), jnp.int32)
    model = self.network.model
    frontier = self.network.canvas(job.prompt, block * self.size)
    kv = model.forward(params, frontier, None, none).kv
    path = jnp.broadcast_to(place, (batch, size))
    return SubBlockState(
      token=token,
      masked=masked,
      decided_at=jnp.zeros((batch, size), jnp.int32),
      block=block,
      fresh=jnp.ones(batch, bool),
      cache=model.allocate(batch, size).commit(kv, frontier.position, path, block * self.size),
      stale=jax.tree.map(lambda x: x[:, :, : self.size], kv),
      passes=zero,
      whole_passes=zero,
      commits=zero,
      finished=jnp.zeros(batch, bool),
    )

  def observe_begin(self, inputs: Inputs) -> tuple[SubBlockState, None]:
    return self.begin(inputs), None

  def stages(self, inputs: Inputs) -> run.Stages:
    params, job, settings = inputs

    def forward(state: SubBlockState, _):
      return self._forward(params, job, state)

    def decide(state: SubBlockState, work):
      logits, state = work
      return self._decided(job, settings.threshold, state, logits)

    return {"forward": forward, "decide": decide}

  def observe(self, observed: TracedPass) -> TracedPass:
    return observed

  def active(self, inputs: Inputs, state: SubBlockState) -> Bool[Array, " B"]:
    return ~state.finished

  def follow(
    self, inputs: Inputs, state: SubBlockState, seen: TracedPass
  ) -> tuple[SubBlockState, Float[Array, "B W"]]:
    """Returns the state after a pass that decides what a traced one did, and log-probabilities."""
    params, job, _ = inputs
    logits, state = self._forward(params, job, state)
    window = self._window(job, state)
    view = self._view(job, state, window, logits)
    candidates = candidates_of(view, jnp.asarray(seen.token))
    candidates = scored_along(job, state, window, logits, candidates, seen.revision, self.score)
    state = self._written(job, state, window, view, candidates, seen.revision.written)
    return state, sampled_log_prob(job.rules, candidates, seen.revision)

  def _place(self, job: Job, state: SubBlockState):
    """Returns the block's positions, its first sub-block with masks, and which rows commit."""
    index = state.block[:, None] * self.size + jnp.arange(self.size)
    block = Window(jnp.clip(index, 0, job.size - 1), index < job.end[:, None])
    open_ = block.read(state.masked) & block.inside
    commits = ~jnp.any(open_, axis=1)
    number = jnp.where(commits, 0, jnp.argmax(open_, axis=1) // self.sub_block)
    return block, number, commits

  def _forward(self, params, job: Job, state: SubBlockState):
    """Returns logits of a sub-block, or of the next block's first position, and the new state."""
    block, number, commits = self._place(job, state)
    begin = number * self.sub_block
    inner = begin[:, None] + jnp.arange(self.sub_block)  # in the block
    opens = jnp.take_along_axis(block.read(state.masked), begin[:, None], axis=1)[:, 0]
    active = ~state.finished
    whole = active & (commits | state.fresh | opens)
    vocab = self.network.model.config.vocab_size
    none = jnp.zeros((*inner.shape, vocab), jnp.float32)
    before = jnp.maximum(inner - 1, 0)

    def over_block(carry):
      cache, stale = carry
      rows = jnp.where(commits[:, None], self.size - 1, before)
      frontier = self._entries(state.token, block)
      output = self.network.model.forward(params, frontier, cache, rows)
      path = jnp.broadcast_to(jnp.arange(self.size), block.index.shape)
      count = jnp.where(active & commits, self.size, 0)
      fresh = jax.tree.map(lambda new, old: _rows(whole, new, old), tuple(output.kv), stale)
      kept = cache.commit(output.kv, frontier.position, path, count)
      return self.network.logits(output), (kept, fresh)

    def over_sub_block(carry):
      cache, stale = carry
      # The other entries of the block, in their order.
      others = jnp.arange(self.size - self.sub_block)
      others = others + jnp.where(others >= begin[:, None], self.sub_block, 0)
      count = jnp.full_like(begin, self.size - self.sub_block)
      around = cache.commit(stale, block.index, others, count) if self._several else cache
      part = Window(*(jnp.take_along_axis(x, inner, axis=1) for x in (block.index, block.inside)))
      rows = jnp.broadcast_to(jnp.maximum(jnp.arange(self.sub_block) - 1, 0), inner.shape)
      output = self.network.model.forward(params, self._entries(state.token, part), around, rows)
      return self.network.logits(output)

    carry = state.cache, tuple(state.stale)
    part = jax.lax.cond(jnp.any(active & ~whole), over_sub_block, lambda _: none, carry)
    full, (cache, stale) = jax.lax.cond(
      jnp.any(whole), over_block, lambda carry: (none, carry), carry
    )
    state = state.replace(
      cache=cache,
      stale=stale,
      passes=state.passes + active,
      whole_passes=state.whole_passes + (whole & ~commits),
      commits=state.commits + (active & commits),
    )
    return jnp.where(whole[:, None, None], full, part), state

  @property
  def _several(self) -> bool:
    return self.sub_block < self.size

  def _entries(self, token: Int[Array, "B S"], window: Window):
    """Returns entries of a block, which see each other."""
    frontier = frontier_lib.bidirectional(jnp.take_along_axis(token, window.index, axis=1))
    hi = jnp.where(window.inside[:, None, :], frontier.hi, frontier.lo)
    return frontier.replace(position=window.index, hi=hi)

  def _window(self, job: Job, state: SubBlockState) -> Window:
    """Returns the positions that a pass may decide."""
    _, number, commits = self._place(job, state)
    inner = number[:, None] * self.sub_block + jnp.arange(self.sub_block)
    # A commit decides one position, the one after the block.
    following = (state.block[:, None] + 1) * self.size + jnp.arange(self.sub_block)
    begin = state.block[:, None] * self.size
    index = jnp.where(commits[:, None], following, begin + inner)
    alone = jnp.arange(self.sub_block) == 0
    inside = (index < job.end[:, None]) & jnp.where(commits[:, None], alone, True)
    return Window(jnp.clip(index, 0, job.size - 1), inside & ~state.finished[:, None])

  def _decided(
    self, job: Job, threshold: Float[Array, " B"], state: SubBlockState, logits
  ) -> tuple[SubBlockState, TracedPass]:
    window = self._window(job, state)
    view = self._view(job, state, window, logits)
    candidates = sample_candidates(view)
    probability = jnp.exp(candidates.confidence)
    best = first(probability, view.open, jnp.ones_like(state.passes))
    chosen = best | (view.open & (probability > threshold[:, None]))
    revision = only_written(chosen)
    candidates = agreed(job, state, window, view, logits, candidates, revision, self.score)
    seen = TracedPass(
      canvas=state.token,
      end=jnp.minimum((state.block + 1) * self.size, job.end),
      index=window.index,
      token=candidates.token,
      revision=revision,
      log_prob=sampled_log_prob(job.rules, candidates, revision),
    )
    return self._written(job, state, window, view, candidates, chosen), seen

  def _written(
    self,
    job: Job,
    state: SubBlockState,
    window: Window,
    view: View,
    candidates: CanvasCandidates,
    chosen: Bool[Array, "B W"],
  ) -> SubBlockState:
    """Returns the state after a pass that decides the chosen positions."""
    block, _, commits = self._place(job, state)
    active = ~state.finished
    state = state.replace(
      token=window.write(state.token, jnp.where(chosen, candidates.token, view.token)),
      masked=window.write(state.masked, view.masked & ~chosen),
      decided_at=window.write(
        state.decided_at,
        jnp.where(chosen, state.passes[:, None], window.read(state.decided_at)),
      ),
      block=state.block + (active & commits),
      fresh=jnp.where(active, commits, state.fresh),
    )
    return self._ended(job, state, block, active & ~commits)

  def _ended(self, job: Job, state: SubBlockState, block: Window, active) -> SubBlockState:
    """Returns the state with rows finished whose block is decided, and their last one."""
    masked = jnp.any(block.read(state.masked) & block.inside, axis=1)
    eos = has_end(job, block, block.read(state.token))
    last = (state.block + 1) * self.size >= job.end
    return state.replace(finished=state.finished | (active & ~masked & (last | eos)))

  def _view(self, job: Job, state: SubBlockState, window: Window, logits) -> View:
    masked = window.read(state.masked) & window.inside
    logits = restrict(job, state, window, logits)
    processed, scored = process(logits, job.rules), self.score(logits, job.rules)
    token, passes = window.read(state.token), state.passes
    return unplanned_view(job, window, token, masked, passes, processed, scored)


def _rows(which: Bool[Array, " B"], one: Array, other: Array) -> Array:
  return jnp.where(which[:, None, None, None], one, other)
