"""The rounds of adaptive parallel decoding."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.diffusion.candidates import CanvasCandidates, log_prob_of
from mtjax.diffusion.denoising.adaptive.rule import AdaptiveParallel, gumbel_noise, sample_with
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job, Window, unplanned_view
from mtjax.diffusion.denoising.traces import TracedPass, sampled_log_prob
from mtjax.diffusion.protocols import only_written
from mtjax.diffusion.random_numbers import Stream, position_keys
from mtjax.diffusion.view import Revision
from mtjax.display.short import short_repr
from mtjax.models import Model, Params
from mtjax.rounds import run
from mtjax.sampling.logits import adjusted, process

Inputs = tuple[tuple[Params, Params], Job, AdaptiveParallel]


class AdaptiveTexts(struct.PyTreeNode):
  """Texts in progress: all before `place` is decided, and nothing from there on."""

  token: Int[Array, "B S"]  # masked positions hold the mask
  masked: Bool[Array, "B S"]
  decided_at: Int[Array, "B S"]  # the pass that decided a position, from 1; 0: prompt, or mask
  place: Int[Array, " B"]
  cache: KVCache  # of the causal model: the tokens before `place`
  passes: Int[Array, " B"]
  finished: Bool[Array, " B"]

  __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class AdaptiveRounds:
  """A `rounds.Program` whose inputs are ((params, causal params), job, rule).

  A pass computes the whole text and the masks after it anew in the masked network, and the drafts
  alone in the causal model, over exact keys: an accepted draft is final, and so is what it saw.
  """

  network: MaskedNetwork
  causal: Model
  parallel: int

  def begin(self, inputs: Inputs) -> AdaptiveTexts:
    (_, params), job, _ = inputs
    batch, size = job.prompt.shape
    place, zero = jnp.arange(size), jnp.zeros(batch, jnp.int32)
    masked = (place >= job.start[:, None]) & (place < job.end[:, None])
    frontier = frontier_lib.causal(job.prompt, length=job.start)
    none = jnp.zeros((batch, 0), jnp.int32)
    output = self.causal.forward(params, frontier, None, none)
    path = jnp.broadcast_to(place, (batch, size))
    empty = self.causal.allocate(batch, size)
    return AdaptiveTexts(
      token=jnp.where(masked, self.network.mask_id, job.prompt),
      masked=masked,
      decided_at=jnp.zeros((batch, size), jnp.int32),
      place=job.start,
      cache=empty.commit(output.kv, frontier.position, path, job.start),
      passes=zero,
      finished=jnp.zeros(batch, bool),
    )

  def observe_begin(self, inputs: Inputs) -> tuple[AdaptiveTexts, None]:
    return self.begin(inputs), None

  def stages(self, inputs: Inputs) -> run.Stages:
    (params, causal_params), job, rule = inputs

    def draft(state: AdaptiveTexts, _):
      window, end = self._window(job, state)
      frontier = self.network.canvas(state.token, end)
      rows = self.network.sources(window.index)
      logits = self.network.logits(self.network.model.forward(params, frontier, None, rows))
      noise = self._noise(job, state, window, logits)
      return logits, noise, sample_with(process(logits, job.rules), noise)

    def verify(state: AdaptiveTexts, work):
      logits, noise, token = work
      _, end = self._window(job, state)
      frontier = frontier_lib.causal(token, start=state.place, length=end - state.place)
      output = self.causal.forward(causal_params, frontier, state.cache)
      # The entry before a draft says what comes there.
      causal = jnp.roll(output.logits, 1, axis=1)
      count = rule.num_accepted(token, logits, causal, noise, job.rules)
      return logits, token, count, output.kv, frontier.position

    def accept(state: AdaptiveTexts, work):
      logits, *drafted = work
      return self._accepted(job, state, logits, *drafted)

    return {"draft": draft, "verify": verify, "accept": accept}

  def observe(self, observed: TracedPass) -> TracedPass:
    return observed

  def active(self, inputs: Inputs, state: AdaptiveTexts) -> Bool[Array, " B"]:
    return ~state.finished

  def replayed(
    self, inputs: tuple[Params, Job, AdaptiveParallel], passes: TracedPass
  ) -> Float[Array, "P B W"]:
    """Returns the log-probabilities of accepted drafts under the masked model, and 0 elsewhere.

    `inputs` has the parameters of the masked model alone: the causal one samples nothing.
    """
    params, job, _ = inputs

    @jax.checkpoint
    def one(_, seen):
      frontier = self.network.canvas(jnp.asarray(seen.canvas), jnp.asarray(seen.end))
      rows = self.network.sources(jnp.asarray(seen.index))
      logits = self.network.logits(self.network.model.forward(params, frontier, None, rows))
      return None, self._log_prob(job, logits, jnp.asarray(seen.token), seen.revision)

    return jax.lax.scan(one, None, passes)[1]

  def _log_prob(
    self, job: Job, logits: Float[Array, "B W V"], token: Int[Array, "B W"], revision: Revision
  ) -> Float[Array, "B W"]:
    own = log_prob_of(process(logits, job.rules), token)
    plain = log_prob_of(adjusted(logits, job.rules), token)
    return sampled_log_prob(job.rules, CanvasCandidates(token, own, plain), revision)

  def _window(self, job: Job, state: AdaptiveTexts) -> tuple[Window, Int[Array, " B"]]:
    """Returns the next positions, and where they end."""
    index = state.place[:, None] + jnp.arange(self.parallel)
    end = jnp.minimum(state.place + self.parallel, job.end)
    return Window(jnp.minimum(index, job.size - 1), index < end[:, None]), end

  def _noise(self, job: Job, state: AdaptiveTexts, window: Window, logits):
    token, masked = window.read(state.token), window.inside
    view = unplanned_view(job, window, token, masked, state.passes, logits, logits)
    return gumbel_noise(position_keys(view, Stream.TOKEN), logits.shape[-1])

  def _accepted(
    self,
    job: Job,
    state: AdaptiveTexts,
    logits: Float[Array, "B W V"],
    token: Int[Array, "B W"],
    count: Int[Array, " B"],
    kv,
    position: Int[Array, "B W"],
  ) -> tuple[AdaptiveTexts, TracedPass]:
    """Returns the state after the first `count` drafts, or up to an end token among them."""
    active = ~state.finished
    window, end = self._window(job, state)
    order = jnp.arange(self.parallel)
    count = jnp.minimum(count, end - state.place)
    ends = jnp.any(token[:, :, None] == job.eos, axis=2) & (order < count[:, None])
    ended = jnp.any(ends, axis=1)
    count = jnp.where(ended, jnp.argmax(ends, axis=1) + 1, count)
    count = jnp.where(active, count, 0)
    new = Window(window.index, order < count[:, None])
    number: Int[Array, "B W"] = jnp.broadcast_to(state.passes[:, None] + 1, token.shape)
    path = jnp.broadcast_to(order, token.shape)
    place = state.place + count
    revision = only_written(new.inside)
    seen = TracedPass(
      canvas=state.token,
      end=end,
      index=window.index,
      token=token,
      revision=revision,
      log_prob=self._log_prob(job, logits, token, revision),
    )
    state = state.replace(
      token=new.write(state.token, token),
      masked=new.write(state.masked, jnp.zeros_like(new.inside)),
      decided_at=new.write(state.decided_at, number),
      place=place,
      cache=state.cache.commit(kv, position, path, count),
      passes=state.passes + active,
      finished=state.finished | (active & (ended | (place >= job.end))),
    )
    return state, seen
