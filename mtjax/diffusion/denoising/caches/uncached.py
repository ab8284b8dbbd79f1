"""No cache: every pass computes the whole canvas."""

import dataclasses

from jaxtyping import Array, Float

from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.caches.shadow import PLAIN, Entries, split, with_shadow
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
    return self._logits(network, params, job, now, PLAIN), cache

  def logits_with_shadow(
    self, network: MaskedNetwork, params: Params, job: Job, cache: tuple[()], now: Pass
  ) -> tuple[Float[Array, "B W V"], Float[Array, "B W V"], tuple[()]]:
    entries = with_shadow(network, now)
    return *split(self._logits(network, params, job, now, entries)), cache

  def _logits(
    self, network: MaskedNetwork, params: Params, job: Job, now: Pass, entries: Entries
  ) -> Float[Array, "B R V"]:
    frontier = network.canvas(now.token, job.end)
    frontier = frontier if now.soften is None else now.soften(frontier)
    index = now.window.index
    frontier, rows = entries.add(frontier, index, network.sources(index))
    return network.logits(network.model.forward(params, frontier, None, rows))
