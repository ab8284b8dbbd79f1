"""Every position whose score reaches a threshold."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import ProbabilityTransfer
from mtjax.diffusion.ranking import first
from mtjax.diffusion.rule import PROBABILITY, PerRow, Range, rule
from mtjax.diffusion.transfer.llada_counts import INDEPENDENT
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class Threshold(ProbabilityTransfer):
  """A pass decides all open positions with score >= threshold, and the best one in any case.

  What is compared is the order's score, so that the position decided in any case is the first of
  the same ranking. Fast-dLLM (2505.22618) has the score of `SampledProbability`, which in greedy
  rows is that of `MaxProbability`; `TopMargin` gives a threshold on margins. Other engines compare
  strictly, which differs for scores of exactly the threshold.
  """

  threshold: PerRow = 0.9
  ranges: ClassVar[dict[str, Range]] = {"threshold": PROBABILITY}
  exactness = Exactness.APPROXIMATE
  reason = INDEPENDENT
  advances = True

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    best = first(score, view.open, jnp.ones_like(view.step))
    return best | (view.open & (score >= self.threshold[:, None]))
