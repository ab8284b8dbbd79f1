"""The rounds of a denoising loop: one pass of the network, and what it decides."""

import dataclasses
from collections.abc import Callable
from typing import cast

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mtjax.diffusion.candidates import CanvasCandidates, candidates_of, sample_candidates
from mtjax.diffusion.denoising.caches.protocol import CachePolicy, Pass, ShadowCachePolicy
from mtjax.diffusion.denoising.constrained import agreed, restrict, scored_along
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import DenoiseState, Job, Window, has_end, window_of
from mtjax.diffusion.denoising.traces import Followed, TracedPass, sampled_log_prob
from mtjax.diffusion.plan import linear_rates
from mtjax.diffusion.view import Revision, View, apply_revision
from mtjax.models import Params
from mtjax.rounds import run
from mtjax.sampling.logits import Rules, best_tokens, process


@dataclasses.dataclass(frozen=True)
class Denoising(Followed):
  """A `rounds.Program` whose inputs are (params, job)."""

  network: MaskedNetwork
  cache: CachePolicy
  block_length: int
  # (logits, sampling rules) -> the logits that confidences are computed from (`View.scored`).
  score: Callable[[Array, Rules], Array]

  def begin(self, inputs: tuple[Params, Job]) -> DenoiseState:
    params, job = inputs
    batch, size = job.prompt.shape
    masked = job.targets
    policy, zero = job.policy, jnp.zeros(batch, jnp.int32)
    window = window_of(job, zero, self.block_length)
    vocab = self.network.model.config.vocab_size
    order, revise = policy.start(batch, self.block_length, vocab)
    return DenoiseState(
      token=jnp.where(masked, self.network.mask_id, job.prompt),
      masked=masked,
      decided_at=jnp.zeros((batch, size), jnp.int32),
      block=zero,
      step=zero,
      total=_count(window, masked),
      rate=jnp.ones(batch, jnp.float32),
      passes=zero,
      finished=jnp.zeros(batch, bool),
      order=order,
      revise=revise,
      cache=job.guidance.start(self.cache, self.network, params, job),
    )

  def observe_begin(self, inputs: tuple[Params, Job]) -> tuple[DenoiseState, None]:
    return self.begin(inputs), None

  def stages(self, inputs: tuple[Params, Job]) -> run.Stages:
    params, job = inputs

    def forward(state: DenoiseState, _):
      return self.forward(params, job, state)

    def decide(state: DenoiseState, work):
      logits, shadow, cache = work
      return self.decide(job, state.replace(cache=cache), logits, shadow)

    return {"forward": forward, "decide": decide}

  def observe(self, observed: TracedPass) -> TracedPass:
    return observed

  def active(self, inputs: tuple[Params, Job], state: DenoiseState) -> Bool[Array, " B"]:
    return ~state.finished

  def forward(
    self, params: Params, job: Job, state: DenoiseState
  ) -> tuple[Float[Array, "B W V"], Float[Array, "B W V"] | None, PyTree]:
    """Returns the logits of a pass and of shadow entries, if a rule needs them, and the cache."""
    if not job.policy.revise.needs_shadow:
      logits, cache = self.logits(params, job, state)
      return logits, None, cache
    now = self._pass(job, state)
    if job.is_target is not None:
      # What is given among the masks has no shadow: others would see a mask in its place.
      now = now._replace(shadowed=now.window.inside & now.window.read(job.is_target))
    cache = cast(ShadowCachePolicy, self.cache)  # `prepare` refuses others
    return cache.logits_with_shadow(self.network, params, job, state.cache, now)

  def logits(
    self, params: Params, job: Job, state: DenoiseState
  ) -> tuple[Float[Array, "B W V"], PyTree]:
    """Returns the logits of a pass without shadow entries, and the cache after it."""
    now = self._pass(job, state)
    return job.guidance.logits(self.cache, self.network, params, job, state.cache, now)

  def decide(
    self,
    job: Job,
    state: DenoiseState,
    logits: Float[Array, "B W V"],
    shadow: Float[Array, "B W V"] | None = None,
  ) -> tuple[DenoiseState, TracedPass]:
    """Returns the state after the decisions of a pass, and what there is to trace."""
    window = window_of(job, state.block, self.block_length)
    view, order, logits = self._view(job, state, window, logits, shadow)
    candidates = sample_candidates(view)
    revision, revise = job.policy.decide(state.revise, view, candidates)
    candidates = agreed(job, state, window, view, logits, candidates, revision, self.score)
    seen = TracedPass(
      canvas=state.token,
      end=job.end,
      index=window.index,
      token=candidates.token,
      revision=revision,
      log_prob=sampled_log_prob(job.rules, candidates, revision),
    )
    state = state.replace(order=order, revise=revise)
    return self._revised(job, state, window, view, candidates, revision), seen

  def follow(
    self, inputs: tuple[Params, Job], state: DenoiseState, seen: TracedPass
  ) -> tuple[DenoiseState, Float[Array, "B W"]]:
    """Returns the state after a pass that decides what a traced one did, and log-probabilities."""
    params, job = inputs
    window = window_of(job, state.block, self.block_length)
    logits, cache = self.logits(params, job, state)
    view, order, logits = self._view(job, state, window, logits, None)
    revision, candidates = seen.revision, candidates_of(view, jnp.asarray(seen.token))
    candidates = scored_along(job, state, window, logits, candidates, revision, self.score)
    state = state.replace(order=order, cache=cache)
    state = self._revised(job, state, window, view, candidates, revision)
    return state, sampled_log_prob(job.rules, candidates, revision)

  def _pass(self, job: Job, state: DenoiseState) -> Pass:
    return Pass(
      token=state.token,
      window=window_of(job, state.block, self.block_length),
      fresh=state.step == 0,
      active=~state.finished,
      block=state.block,
    )

  def _revised(
    self,
    job: Job,
    state: DenoiseState,
    window: Window,
    view: View,
    candidates: CanvasCandidates,
    revision: Revision,
  ) -> DenoiseState:
    """Returns the state after a revision, and after its block if that is done."""
    active = ~state.finished
    token, masked = apply_revision(view, candidates.token, revision, self.network.mask_id)
    new = revision.written | revision.edited
    decided_at = jnp.where(new, state.passes[:, None] + 1, window.read(state.decided_at))
    decided_at = revision.move(jnp.where(revision.remasked, 0, decided_at), 0)
    open_ = jnp.any(masked & window.inside, axis=1) | revision.more
    state = state.replace(
      token=window.write(state.token, token),
      masked=window.write(state.masked, masked),
      decided_at=window.write(state.decided_at, decided_at),
      step=state.step + active,
      rate=jnp.where(active, job.policy.transfer.next_rate(view), state.rate),
      passes=state.passes + active,
    )
    return self._next_block(job, state, window, active & ~open_)

  def _next_block(self, job: Job, state: DenoiseState, window: Window, done) -> DenoiseState:
    """Returns the state with rows that are `done` with their block at the next, or finished."""
    ends = has_end(job, window, window.read(state.token))
    block = state.block + done
    last = job.first + block * self.block_length >= job.stop
    following = window_of(job, block, self.block_length)
    return state.replace(
      block=block,
      step=jnp.where(done, 0, state.step),
      total=jnp.where(done, _count(following, state.masked), state.total),
      rate=jnp.where(done, 1.0, state.rate),
      finished=state.finished | (done & (ends | last)),
    )

  def _view(
    self, job: Job, state: DenoiseState, window: Window, logits, shadow
  ) -> tuple[View, PyTree, Float[Array, "B W V"]]:
    """Returns what the rules of a pass see, the order's state after it, and the order's logits."""
    masked = window.read(state.masked) & window.inside & ~state.finished[:, None]
    generated = window.inside & window.read(job.targets) & ~state.finished[:, None]
    view = View(
      logits=logits,
      scored=logits,
      token=window.read(state.token),
      position=window.index,
      masked=masked,
      open=masked,
      decided=generated & ~masked,
      total=state.total,
      step=state.step,
      steps=job.steps,
      t=state.rate,
      s=linear_rates(state.step, job.steps, final=0.0)[1],
      passes=state.passes,
      key=job.key,
      shadow=None if shadow is None else self.score(shadow, job.rules),
    )
    view = job.policy.revise.prepare(view)
    view, order = job.policy.order.prepare(state.order, view)
    ordered = view.logits
    logits = restrict(job, state, window, ordered)
    view = view.replace(
      logits=process(logits, job.rules),
      scored=self.score(logits, job.rules),
      # Without a temperature in the program, nothing is sampled: no noise, no softmax of one token.
      best=best_tokens(logits, job.rules) if job.rules.temperature is None else None,
    )
    return view, order, ordered


def _count(window: Window, masked: Bool[Array, "B S"]):
  return jnp.sum(window.read(masked) & window.inside, axis=1, dtype=jnp.int32)
