"""The time of a pass of the denoising loop outside the network: what decisions cost."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.diffusion.denoising.caches import Pass
from mtjax.diffusion.denoising.prepare import prepare
from mtjax.diffusion.denoising.state import Job
from mtjax.models import Params
from mtjax.registry.denoising.denoiser import Denoiser
from mtjax.rounds import run
from mtjax.sampling.logits import Sampling
from mtjax.types import Exactness

_SCALE = 4.0  # of the stand-in's random logits: some positions are sure, others are not


class PassTime(NamedTuple):
  """Seconds per pass: medians over interleaved rounds."""

  whole: float
  decisions: float  # the same loop with a stand-in for the network

  @property
  def share(self) -> float:
    """Decisions over the whole."""
    return self.decisions / self.whole


@dataclasses.dataclass(frozen=True)
class StandInCache:
  """A cache policy without a network: the logits are random numbers, the same in every pass.

  One of them depends on the canvas, so that no pass can be computed before the loop.
  """

  width: int  # number of positions of a block

  exactness = Exactness.APPROXIMATE
  reason = "there is no network"
  needs_final = False
  reads_layers = False

  def check(self, network: MaskedNetwork) -> None:
    pass

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> Float[Array, "B W V"]:
    shape = (len(job.prompt), self.width, network.model.config.vocab_size)
    return _SCALE * jax.random.normal(jax.random.key(0), shape)

  def logits(
    self,
    network: MaskedNetwork,
    params: Params,
    job: Job,
    cache: Float[Array, "B W V"],
    now: Pass,
  ) -> tuple[Float[Array, "B W V"], Float[Array, "B W V"]]:
    cache = cache.at[:, 0, 0].add(1e-3 * now.token[:, 0])
    cache = cache.at[:, :, 0].add(1e-6 * now.token[:, :1])
    return network.allowed(cache), cache


def pass_time(
  network: MaskedNetwork,
  params: Params,
  prompts: Sequence[Sequence[int]],
  denoiser: Denoiser,
  *,
  sampling: Sampling | None = None,
  rounds: int = 5,
) -> PassTime:
  """Returns the time per pass of a method, and of its decisions alone.

  The reading of the prompts is part of both, as far as the cache does it. Raises ValueError for a
  rule that needs shadow entries, which the stand-in does not have.
  """
  times = {}
  plan = denoiser.plan(network)
  for cache in (denoiser.caching, StandInCache(plan.block_length)):
    program, inputs = prepare(
      network,
      params,
      prompts,
      plans=[plan] * len(prompts),
      policy=denoiser.policy,
      cache=cache,
      guidance=denoiser.guiding,
      sampling=sampling,
      filtered_confidence=denoiser.filtered_confidence,
      key=0,
      eos=(),
    )
    state, _ = run.run(program, inputs)
    times[cache] = (program, inputs, int(np.max(np.asarray(state.passes))), [])
  for _ in range(rounds):
    for program, inputs, passes, seconds in times.values():
      began = time.perf_counter()
      run.run(program, inputs)
      seconds.append((time.perf_counter() - began) / passes)
  whole, decisions = (statistics.median(seconds) for *_, seconds in times.values())
  return PassTime(whole, decisions)
