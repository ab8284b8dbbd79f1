"""MaskGIT: a cosine number of masks, and noise on the choice that cools down."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.diffusion.protocols import ProbabilityTransfer
from mtjax.diffusion.rule import PerRow, Range, rule
from mtjax.diffusion.transfer.gumbel.gumbel_ranking import GumbelRanking, whole
from mtjax.diffusion.transfer.llada_counts import INDEPENDENT
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class MaskGit(GumbelRanking, ProbabilityTransfer):
  """After pass i of T, floor(N cos(pi/2 (i + 1) / T)) positions stay masked (2202.04200).

  At least one and at most n - 1 of the n masked ones do, and none after the last pass. They are
  those of the lowest log(score) + choice_temperature (1 - (i + 1) / T) G with Gumbel noise G; the
  published score is that of `SampledProbability`. A row with one masked position decides it in its
  last pass only, as published.
  """

  choice_temperature: PerRow = 4.5
  ranges: ClassVar[dict[str, Range]] = {"choice_temperature": Range(low=0.0)}
  exactness = Exactness.APPROXIMATE
  reason = INDEPENDENT

  def count(self, view: View) -> Int[Array, " B"]:
    masks = whole(view.total * jnp.cos(jnp.pi / 2 * _share(view)))
    masks = jnp.maximum(1, jnp.minimum(view.num_open - 1, masks))
    return jnp.where(view.last, view.num_open, view.num_open - masks)

  def location(self, score: Float[Array, "B L"]) -> Float[Array, "B L"]:
    return jnp.log(jnp.maximum(score, jnp.finfo(score.dtype).tiny))

  def temperature(self, view: View) -> Float[Array, " B"]:
    return self.choice_temperature * (1.0 - _share(view))


def _share(view: View) -> Float[Array, " B"]:
  return jnp.minimum((view.step + 1) / view.steps, 1.0)
