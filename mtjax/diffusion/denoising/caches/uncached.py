"""No cache: every pass computes the whole canvas."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job
from mtjax.models import Params
from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class Uncached:
  """Computes every entry of the canvas in every pass; the logits are exact by definition."""

  exactness = Exactness.LOSSLESS
  reason = ""
  needs_final = False
  takes_vectors = True
  reads_layers = False

  def check(self, network: MaskedNetwork) -> None:
    if network.model.config.predicts == "any_subset":
      raise ValueError(
        "in an any-subset model a token sees those that were decided before it, which a canvas "
        "does not tell: use the cache AnyOrder"
      )

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> tuple[()]:
    return ()

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: tuple[()], now: Pass
  ) -> tuple[Float[Array, "B W V"], tuple[()]]:
    frontier = network.canvas(now.token, job.end)
    frontier = frontier if now.soften is None else now.soften(frontier)
    output = network.model.forward(params, frontier, None, network.sources(now.window.index))
    return network.logits(output), cache

  def logits_with_shadow(
    self, network: MaskedNetwork, params: Params, job: Job, cache: tuple[()], now: Pass
  ) -> tuple[Float[Array, "B W V"], Float[Array, "B W V"], tuple[()]]:
    index, inside = now.window.index, now.window.inside
    frontier = network.with_shadow(now.token, job.end, index, inside)
    shadow = job.size + jnp.broadcast_to(jnp.arange(index.shape[1]), index.shape)
    rows = jnp.concatenate([index, shadow], axis=1)
    logits = network.logits(network.model.forward(params, frontier, None, rows))
    return logits[:, : index.shape[1]], logits[:, index.shape[1] :], cache
