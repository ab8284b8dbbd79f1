"""The rounds of a loop over uniform canvases: one pass of the network, and what becomes of it."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from mtjax.diffusion.candidates import log_prob_of
from mtjax.diffusion.denoising.traces import Followed, TracedPass
from mtjax.diffusion.protocols import only_written
from mtjax.diffusion.random_numbers import Stream, keys_before, position_keys
from mtjax.diffusion.uniform.constrained import restrict_canvas, text_along, text_logits
from mtjax.diffusion.uniform.network import UniformNetwork, pure_noise
from mtjax.diffusion.uniform.state import UniformJob, UniformState
from mtjax.diffusion.view import View
from mtjax.models import Params
from mtjax.rounds import run
from mtjax.sampling.categorical import argmax, sample_categorical
from mtjax.sampling.logits import process


@dataclasses.dataclass(frozen=True)
class UniformDenoising(Followed):
  """A `rounds.Program` whose inputs are (params, job)."""

  network: UniformNetwork

  @property
  def _vocab(self) -> int:
    """The number of tokens, which is the number of a mask among logits."""
    return self.network.model.config.vocab_size

  def begin(self, inputs: tuple[Params, UniformJob]) -> UniformState:
    params, job = inputs
    batch, size = job.prompt.shape
    place, zero = jnp.arange(size), jnp.zeros(batch, jnp.int32)
    where = job.start[:, None] + jnp.arange(self.network.canvas_length)
    return UniformState(
      token=job.prompt,
      masked=(place >= job.start[:, None]) & (place < job.end[:, None]),
      decided_at=jnp.zeros((batch, size), jnp.int32),
      canvas=self._noise(job, zero, where),
      begin=job.start,
      step=zero,
      unchanged=zero,
      signal=self.network.no_signal(batch),
      pending=jnp.zeros(batch, bool),
      passes=zero,
      reads=zero,
      finished=jnp.zeros(batch, bool),
      cache=self.network.start(params, job.prompt, job.start),
    )

  def observe_begin(self, inputs: tuple[Params, UniformJob]) -> tuple[UniformState, None]:
    return self.begin(inputs), None

  def stages(self, inputs: tuple[Params, UniformJob]) -> run.Stages:
    params, job = inputs

    def forward(state: UniformState, _):
      return self.forward(params, job, state)

    def decide(state: UniformState, work):
      logits, cache = work
      return self.decide(params, job, self._read(state, cache), logits)

    return {"forward": forward, "decide": decide}

  def observe(self, observed: TracedPass) -> TracedPass:
    return observed

  def active(self, inputs: tuple[Params, UniformJob], state: UniformState) -> Bool[Array, " B"]:
    return ~state.finished

  def forward(
    self, params: Params, job: UniformJob, state: UniformState
  ) -> tuple[Float[Array, "B W V"], PyTree]:
    """Returns the logits of a pass over canvases, and the cache with what was finished before.

    Finished canvases are read by a pass of their own, so that no pass over a canvas has another
    shape than the passes of other rows.
    """
    cache, size = state.cache, self.network.canvas_length
    if self.network.commits:
      before = state.begin - size * state.pending
      text = jnp.take_along_axis(state.token, state.places(before), axis=1)
      cache = jax.lax.cond(
        jnp.any(state.pending),
        lambda kept: self.network.read(params, kept, text, before, size * state.pending),
        lambda kept: kept,
        cache,
      )
    logits = self.network.logits(
      params, cache, state.token, state.canvas, state.begin, state.signal
    )
    return logits, cache

  def decide(
    self, params: Params, job: UniformJob, state: UniformState, logits: Float[Array, "B W V"]
  ) -> tuple[UniformState, TracedPass]:
    """Returns the state after a pass, and after its canvas if that is done; and its trace."""
    view = self._view(job, state, logits)
    sampled_from, keys = job.rule.logits(view), position_keys(view, Stream.TOKEN)
    after = job.rule.revise(view, self.network, self._sampled(sampled_from, keys))
    text = argmax(sampled_from) if job.rule.greedy_text else after.canvas
    is_bound = job.constraint is not None
    if is_bound:
      fitting = text_along(job, state, logits, sampled_from, keys)
      text = fitting if job.rule.greedy_text else text
    running, where = ~state.finished, state.places()
    unchanged = jnp.where(jnp.all(_is_same(state, text), axis=1), state.unchanged + 1, 0)
    ends = running & ((state.step + 1 >= job.steps) | job.rule.done(view, unchanged))
    if is_bound and not job.rule.greedy_text:
      text = jnp.where(ends[:, None], fitting, text)
    written = running[:, None] & (ends[:, None] | after.kept)
    token = jnp.where(ends[:, None], text, after.canvas)
    seen = TracedPass(
      canvas=self._whole(state),
      end=state.begin + where.shape[1],
      index=where,
      token=token,
      revision=only_written(written).replace(
        remasked=running[:, None] & ~written, more=running & ~ends
      ),
      log_prob=self._log_prob(job, state, view, logits, sampled_from, token, ends, written),
      text=text,
    )
    state = state.replace(
      canvas=jnp.where(running[:, None], after.canvas, state.canvas),
      unchanged=jnp.where(running, unchanged, state.unchanged),
    )
    return self._moved(params, job, state, view, text, ends), seen

  def follow(
    self, inputs: tuple[Params, UniformJob], state: UniformState, seen: TracedPass
  ) -> tuple[UniformState, Float[Array, "B W"]]:
    """Returns the state after a pass that decides what a traced one did, and log-probabilities.

    Canvases and texts are the trace's; the network's signal to itself is computed again.
    """
    params, job = inputs
    running = ~state.finished
    here = jnp.take_along_axis(jnp.asarray(seen.canvas), state.places(), axis=1)
    state = state.replace(canvas=jnp.where(running[:, None], here, state.canvas))
    logits, cache = self.forward(params, job, state)
    state = self._read(state, cache)
    view = self._view(job, state, logits)
    token, written = jnp.asarray(seen.token), jnp.asarray(seen.revision.written)
    ends = running & ~seen.revision.more
    sampled_from = job.rule.logits(view)
    log_prob = self._log_prob(job, state, view, logits, sampled_from, token, ends, written)
    return self._moved(params, job, state, view, jnp.asarray(seen.text), ends), log_prob

  def _read(self, state: UniformState, cache: PyTree) -> UniformState:
    """Returns the state after finished canvases were read."""
    return state.replace(
      cache=cache, reads=state.reads + state.pending, pending=jnp.zeros_like(state.pending)
    )

  def _whole(self, state: UniformState) -> Int[Array, "B S"]:
    """Returns what a pass sees: the text with the canvas in its place."""
    return jnp.put_along_axis(state.token, state.places(), state.canvas, axis=1, inplace=False)

  def _sampled(self, logits: Float[Array, "B W N"], keys: Key[Array, "B W"]) -> Int[Array, "B W"]:
    """Returns a token of every position."""
    token = jax.vmap(jax.vmap(sample_categorical))(logits, keys)
    mask = self.network.mask_id
    return token if mask is None else jnp.where(token == self._vocab, mask, token)

  def _log_prob(
    self,
    job: UniformJob,
    state: UniformState,
    view: View,
    logits: Float[Array, "B W V"],
    sampled_from: Float[Array, "B W N"],
    token: Int[Array, "B W"],
    ends: Bool[Array, " B"],
    written: Bool[Array, "B W"],
  ) -> Float[Array, "B W"]:
    """Returns the log-probabilities of what a pass has written, and 0 elsewhere.

    The text of a canvas that ends may be the most probable one: it has those of samples, too.
    """
    # A mask is the token after those of the vocabulary.
    place = jnp.minimum(token, sampled_from.shape[-1] - 1)
    # Noise is no sample, and a filter may have removed it.
    logits_of = jnp.where(written[:, :, None], sampled_from, 0.0)
    log_prob = log_prob_of(logits_of, place)
    if job.constraint is not None:
      of_text = text_logits(job, state, logits, sampled_from, token)
      of_text = jnp.where(ends[:, None, None], of_text, 0.0)
      if job.rule.greedy_text:
        temperature = job.rule.temperature_at(view.step, view.steps)
        of_text = process(of_text, job.filters.replace(temperature=temperature))
      text = jnp.minimum(token, of_text.shape[-1] - 1)
      log_prob = jnp.where(ends[:, None], log_prob_of(of_text, text), log_prob)
    return jnp.where(written, log_prob, 0.0)

  def _moved(
    self,
    params: Params,
    job: UniformJob,
    state: UniformState,
    view: View,
    text: Int[Array, "B W"],
    ends: Bool[Array, " B"],
  ) -> UniformState:
    """Returns the state after a pass that has this text, at the next canvas if one ends."""
    running, where = ~state.finished, state.places()
    rows = jnp.arange(where.shape[0])[:, None]
    place = jnp.where(running[:, None], where, state.token.shape[1])

    def written(values, here):
      return values.at[rows, place].set(here, mode="drop")

    at = state.passes[:, None] + 1
    decided = jnp.where(
      _is_same(state, text), jnp.take_along_axis(state.decided_at, where, axis=1), at
    )
    signal = self.network.signal(params, view.logits)
    state = state.replace(
      token=written(state.token, text),
      masked=written(state.masked, False),
      decided_at=written(state.decided_at, decided),
      step=state.step + running,
      signal=_where(running[:, None, None], signal, state.signal),
      passes=state.passes + running,
    )
    return self._next_canvas(job, state, text, ends)

  def _next_canvas(
    self, job: UniformJob, state: UniformState, text: Int[Array, "B W"], ends: Bool[Array, " B"]
  ) -> UniformState:
    """Returns the state with rows that `ends` names at their next canvas, or finished."""
    size = self.network.canvas_length
    has_end = jnp.any(text[:, :, None] == job.eos, axis=(1, 2))
    finished = ends & (has_end | (state.begin + size >= job.end))
    goes_on = ends & ~finished
    begin = state.begin + size * goes_on
    fresh = self._noise(job, state.passes, state.places(begin))
    column = goes_on[:, None]
    none = self.network.no_signal(text.shape[0])
    return state.replace(
      canvas=jnp.where(column, fresh, state.canvas),
      begin=begin,
      step=jnp.where(goes_on, 0, state.step),
      unchanged=jnp.where(goes_on, 0, state.unchanged),
      signal=_where(column[..., None], none, state.signal),
      pending=goes_on & self.network.commits,
      finished=state.finished | finished,
    )

  def _view(self, job: UniformJob, state: UniformState, logits: Float[Array, "B W V"]) -> View:
    temperature = job.rule.temperature_at(state.step, job.steps)
    restricted = restrict_canvas(job, state, logits)
    logits = process(restricted, job.filters.replace(temperature=temperature))
    here = jnp.broadcast_to(~state.finished[:, None], state.canvas.shape)
    steps = job.steps.astype(jnp.float32)
    return View(
      logits=logits,
      scored=logits,
      token=state.canvas,
      position=state.places(),
      masked=here,
      open=here,
      decided=jnp.zeros_like(here),
      total=jnp.full_like(state.step, state.canvas.shape[1]),
      step=state.step,
      steps=job.steps,
      t=(job.steps - state.step) / steps,
      s=(job.steps - state.step - 1) / steps,
      passes=state.passes,
      key=job.key,
    )

  def _noise(
    self, job: UniformJob, passes: Int[Array, " B"], where: Int[Array, "B W"]
  ) -> Int[Array, "B W"]:
    keys = keys_before(job.key, passes, where, Stream.NOISE)
    return pure_noise(keys, job.rule.mask_share(), self.network)


def _is_same(state: UniformState, text: Int[Array, "B W"]) -> Bool[Array, "B W"]:
  """Returns where a canvas has the text that it had after the pass before."""
  last, new = (jnp.take_along_axis(x, state.places(), axis=1) for x in (state.token, state.masked))
  return (text == last) & ~new


def _where(
  here: Bool[Array, "B 1 1"], one: Float[Array, "B W D"] | None, other: Float[Array, "B W D"] | None
) -> Float[Array, "B W D"] | None:
  return None if one is None or other is None else jnp.where(here, one, other)
