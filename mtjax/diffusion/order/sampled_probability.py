"""Positions by the probability of the token that was sampled there: biased."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class SampledProbability(StatelessOrder):
  """Scores are p(candidate) under `View.scored` (LLaDA's low_confidence, MaskGIT, maskgit_plus).

  LLaDA's `generate.py` calls it remasking, but nothing that is decided is masked again. In greedy
  rows it is `MaxProbability`.
  """

  exactness = Exactness.APPROXIMATE
  reason = (
    "ranking by the sampled token's own probability favours probable tokens: the distribution "
    "changes even with one position per pass and conditionals that all agree"
  )
  probability = True

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    return jnp.exp(candidates.confidence)
