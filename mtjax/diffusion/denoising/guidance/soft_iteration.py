"""Soft iteration: a mask's input tells what the last pass expected there."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mtjax.diffusion.denoising.caches.protocol import CachePolicy, Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.soft_inputs import added_to_masks
from mtjax.diffusion.denoising.state import Job
from mtjax.diffusion.rule import SHARE, PerRow, PerRowRule, Range, rule
from mtjax.models import Params
from mtjax.models.access import EmbeddingAccess
from mtjax.types import Exactness


@rule
class SoftIteration(PerRowRule):
  """The input of a mask becomes E[MASK] + w E_p[E[x]], with p what the last pass said there.

  w is min(start + growth i, limit) in the pass after number i of the row, from 0, over all blocks
  (dInfer 2510.08666, `IterationSmooth`, whose defaults these are and which adds the vector, and
  does not average). A mask that no pass has decided about, as those of later blocks, is a mask: a
  pass computes the logits of its block alone. dInfer also lowers the threshold from pass to pass:
  `FallingThreshold`.

  p has neither temperature nor filters. The network was not trained on such inputs.
  """

  start_weight: PerRow = 0.15
  growth: PerRow = 0.02
  limit: PerRow = 0.3
  ranges: ClassVar[dict[str, Range]] = {
    "start_weight": SHARE,
    "growth": Range(low=0.0),
    "limit": SHARE,
  }
  exactness = Exactness.APPROXIMATE
  reason = "inputs of masks are vectors on which the model was not trained"
  forwards = 1
  gives_vectors = True

  def start(self, cache: CachePolicy, network: MaskedNetwork, params: Params, job: Job) -> PyTree:
    batch, size = job.prompt.shape
    config = EmbeddingAccess.of(network.model.config).config
    more = jnp.zeros((batch, size, config.dim), config.dtype)
    return cache.start(network, params, job), more, jnp.zeros(batch, jnp.int32)

  def logits(
    self,
    cache: CachePolicy,
    network: MaskedNetwork,
    params: Params,
    job: Job,
    state: PyTree,
    now: Pass,
  ) -> tuple[Float[Array, "B W V"], PyTree]:
    kept, more, number = state
    now = now._replace(soften=added_to_masks(network, params, more))
    logits, kept = cache.logits(network, params, job, kept, now)
    weight = jnp.minimum(self.start_weight + self.growth * number, self.limit)
    expected = EmbeddingAccess.of(network.model.config).expected(params, jax.nn.softmax(logits))
    place = jnp.where(now.window.inside & now.active[:, None], now.window.index, more.shape[1])
    rows = jnp.arange(more.shape[0])[:, None]
    new = (weight[:, None, None] * expected).astype(more.dtype)
    return logits, (kept, more.at[rows, place].set(new, mode="drop"), number + now.active)
