"""The rounds of a loop over uniform canvases: one pass of the network, and what becomes of it."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.diffusion.random_numbers import Stream, keys_before
from mtjax.diffusion.uniform.network import UniformNetwork, pure_noise
from mtjax.diffusion.uniform.state import UniformJob, UniformState
from mtjax.diffusion.view import View
from mtjax.models import Params
from mtjax.rounds import run
from mtjax.sampling.logits import process


@dataclasses.dataclass(frozen=True)
class UniformDenoising:
  """A `rounds.Program` whose inputs are (params, job)."""

  network: UniformNetwork

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
      state = state.replace(
        cache=cache, reads=state.reads + state.pending, pending=jnp.zeros_like(state.pending)
      )
      return self.decide(params, job, state, logits), None

    return {"forward": forward, "decide": decide}

  def observe(self, observed: PyTree) -> PyTree:
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
  ) -> UniformState:
    """Returns the state after a pass, and after its canvas if that is done."""
    view = self._view(job, state, logits)
    after = job.rule.revise(view, self.network)
    active, where = ~state.finished[:, None], state.places()
    last, new = (jnp.take_along_axis(x, where, axis=1) for x in (state.token, state.masked))
    same = (after.text == last) & ~new
    unchanged = jnp.where(jnp.all(same, axis=1), state.unchanged + 1, 0)
    rows = jnp.arange(where.shape[0])[:, None]
    place = jnp.where(active, where, state.token.shape[1])

    def written(values, here):
      return values.at[rows, place].set(here, mode="drop")

    at = state.passes[:, None] + 1
    decided = jnp.where(same, jnp.take_along_axis(state.decided_at, where, axis=1), at)
    signal = self.network.signal(params, view.logits)
    running = active[:, 0]
    ends = running & ((state.step + 1 >= job.steps) | job.rule.done(view, unchanged))
    state = state.replace(
      token=written(state.token, after.text),
      masked=written(state.masked, False),
      decided_at=written(state.decided_at, decided),
      canvas=jnp.where(active, after.canvas, state.canvas),
      step=state.step + running,
      unchanged=jnp.where(running, unchanged, state.unchanged),
      signal=_where(active[..., None], signal, state.signal),
      passes=state.passes + running,
    )
    return self._next_canvas(job, state, after.text, ends)

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
    logits = process(logits, job.filters.replace(temperature=temperature))
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


def _where(
  here: Bool[Array, "B 1 1"], one: Float[Array, "B W D"] | None, other: Float[Array, "B W D"] | None
) -> Float[Array, "B W D"] | None:
  return None if one is None or other is None else jnp.where(here, one, other)
