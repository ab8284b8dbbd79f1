"""Dream's counts: a share of what is still masked, at a temperature of the choice."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.diffusion.rule import PerRow, Range, rule
from mtjax.diffusion.transfer.gumbel.gumbel_ranking import GumbelRanking, whole
from mtjax.diffusion.transfer.llada_counts import INDEPENDENT
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class DreamCounts(GumbelRanking):
  """A pass decides int(n (1 - s / t)) of the n masked positions, and the last pass all of them.

  Dream's `diffusion_generate`, whose times are linspace(1, 1e-3, steps + 1). At `alg_temp` 0 they
  are those of the highest scores; above, they are sampled without replacement from
  softmax(score / alg_temp). Dream's scores are those of `SampledProbability`, `TopMargin` and
  `LowEntropy`, whose units the temperature refers to.

  Dream takes the mean of n over the batch; here n is the row's own.
  """

  alg_temp: PerRow = 0.0
  ranges: ClassVar[dict[str, Range]] = {"alg_temp": Range(low=0.0)}
  exactness = Exactness.APPROXIMATE
  reason = INDEPENDENT

  def count(self, view: View) -> Int[Array, " B"]:
    share = whole(view.num_open * (1.0 - view.s / view.t))
    return jnp.where(view.last, view.num_open, share)

  def location(self, score: Float[Array, "B L"]) -> Float[Array, "B L"]:
    return score

  def temperature(self, view: View) -> Float[Array, " B"]:
    return self.alg_temp
