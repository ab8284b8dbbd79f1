"""The protocol of guidance, and the base of kinds that compare two passes."""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from mtjax.diffusion.denoising.caches.protocol import CachePolicy, Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job
from mtjax.diffusion.rule import PerRowRule
from mtjax.models import Params
from mtjax.types import Exactness


@runtime_checkable
class Guidance(Protocol):
  """Says which passes the logits of a step come from. A pytree: its settings are per row."""

  @property
  def exactness(self) -> Exactness:
    """What is kept of the network's distribution given the prompt."""
    ...

  @property
  def reason(self) -> str:
    """Why the distribution changes; empty where it does not."""
    ...

  @property
  def forwards(self) -> int:
    """The number of forward passes of a step."""
    ...

  @property
  def gives_vectors(self) -> bool:
    """True if its passes have soft inputs, which need a `VectorCachePolicy`."""
    ...

  def for_rows(self, batch: int) -> "Guidance":
    """Returns the guidance with an array [B] for every setting."""
    ...

  def start(self, cache: CachePolicy, network: MaskedNetwork, params: Params, job: Job) -> PyTree:
    """Returns the caches before the first pass."""
    ...

  def logits(
    self,
    cache: CachePolicy,
    network: MaskedNetwork,
    params: Params,
    job: Job,
    state: PyTree,
    now: Pass,
  ) -> tuple[Float[Array, "B W V"], PyTree]:
    """Returns the logits of the window's positions, and the caches after the pass."""
    ...


class TwoPasses(PerRowRule):
  """Base of guidance by a pass over the canvas whose prompt is masked.

  Logits become c + weight (c - u), with u those of that pass. Constants that are added to all
  logits of a position change nothing, so these are the distributions of guidance by
  log-probabilities too. Each pass has a cache of its own, of the same policy. Positions of weight 0
  keep their logits bit for bit.
  """

  exactness = Exactness.APPROXIMATE
  reason = "guidance changes the model's distribution given the prompt"
  forwards = 2
  gives_vectors = False

  def weight(self, job: Job, now: Pass, given: Float[Array, "B W V"]) -> Float[Array, "B W"]:
    """Returns the weight of the difference at each position, at least 0."""
    raise NotImplementedError

  def start(self, cache: CachePolicy, network: MaskedNetwork, params: Params, job: Job) -> PyTree:
    other = job.replace(prompt=_masked(job, job.prompt, network))
    return cache.start(network, params, job), cache.start(network, params, other)

  def logits(
    self,
    cache: CachePolicy,
    network: MaskedNetwork,
    params: Params,
    job: Job,
    state: PyTree,
    now: Pass,
  ) -> tuple[Float[Array, "B W V"], PyTree]:
    given, kept = cache.logits(network, params, job, state[0], now)
    other = job.replace(prompt=_masked(job, job.prompt, network))
    masked = now._replace(token=_masked(job, now.token, network))
    without, kept_without = cache.logits(network, params, other, state[1], masked)
    weight = self.weight(job, now, given)[:, :, None]
    # The mask has -inf in both, and infinities have no difference.
    finite = jnp.isfinite(given) & jnp.isfinite(without)
    difference = jnp.where(finite, given, 0.0) - jnp.where(finite, without, 0.0)
    return jnp.where(weight > 0, given + weight * difference, given), (kept, kept_without)


def _masked(job: Job, token: Int[Array, "B S"], network: MaskedNetwork) -> Int[Array, "B S"]:
  """Returns the canvas with masks in place of the prompt, and of what else is given."""
  given = jnp.arange(job.size) < job.start[:, None]
  if job.is_target is not None:
    given = ~job.is_target
  return jnp.where(given, network.mask_id, token)
