"""No guidance."""

from jaxtyping import Array, Float, PyTree

from mtjax.diffusion.denoising.caches.protocol import CachePolicy, Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job
from mtjax.diffusion.rule import PerRowRule, rule
from mtjax.models import Params
from mtjax.types import Exactness


@rule
class Unguided(PerRowRule):
  """Logits are those of one pass, given the prompt."""

  exactness = Exactness.LOSSLESS
  reason = ""
  forwards = 1
  gives_vectors = False

  def start(self, cache: CachePolicy, network: MaskedNetwork, params: Params, job: Job) -> PyTree:
    return cache.start(network, params, job)

  def logits(
    self,
    cache: CachePolicy,
    network: MaskedNetwork,
    params: Params,
    job: Job,
    state: PyTree,
    now: Pass,
  ) -> tuple[Float[Array, "B W V"], PyTree]:
    return cache.logits(network, params, job, state, now)
