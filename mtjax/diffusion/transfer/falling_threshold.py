"""A threshold that is high at first, and falls from pass to pass."""

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
class FallingThreshold(ProbabilityTransfer):
  """`Threshold` with max(1 - decay i, threshold) in pass i of the row, from 0, over all blocks.

  It goes with `SoftIteration` (dInfer 2510.08666, `IterationSmooth`), whose first passes know
  little.
  """

  threshold: PerRow = 0.9
  decay: PerRow = 0.02
  ranges: ClassVar[dict[str, Range]] = {"threshold": PROBABILITY, "decay": Range(low=0.0)}
  exactness = Exactness.APPROXIMATE
  reason = INDEPENDENT
  advances = True

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    threshold = jnp.maximum(1.0 - self.decay * view.passes, self.threshold)
    best = first(score, view.open, jnp.ones_like(view.step))
    return best | (view.open & (score >= threshold[:, None]))
