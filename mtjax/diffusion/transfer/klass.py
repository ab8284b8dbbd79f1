"""KLASS: positions of which the model is sure, and has been for some passes."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import OrderPolicy, ProbabilityTransfer
from mtjax.diffusion.ranking import first
from mtjax.diffusion.rule import PROBABILITY, PerRow, Range, rule
from mtjax.diffusion.transfer.llada_counts import INDEPENDENT, LladaCounts
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class Klass(ProbabilityTransfer):
  """A pass decides all open positions with score > threshold and `View.drift` < drift.

  Where there is none, it decides the best ones by score: as many as `LladaCounts` in this pass, and
  one at least (KLASS 2511.05664, algorithm 1; `stable_confident_decode` with the strategy "all").
  With as many planned passes as positions that is one. The drift is measured by the order
  `Stability`. The defaults are those of the authors' program; their scripts for LLaDA have 0.6 and
  0.015 for GSM8K, 0.9 and 0.01 for HumanEval, those for Dream 0.9 and 0.001.

  The published program ends after the planned passes, with masks if passes decided fewer positions
  than were planned for them, and its fallback may write over decided positions where fewer are
  masked than it asks for. Here passes go on until no mask is left, and masks alone are decided.
  What it compares at a temperature above 0 has the noise of sampling in it (`Stability`).
  """

  threshold: PerRow = 0.9
  drift: PerRow = 0.01
  ranges: ClassVar[dict[str, Range]] = {
    "threshold": PROBABILITY,
    "drift": Range(low=0.0, open_low=True),
  }
  exactness = Exactness.APPROXIMATE
  reason = INDEPENDENT
  advances = True

  def check(self, order: OrderPolicy) -> None:
    super().check(order)
    if not order.measures_drift:
      raise ValueError(
        f"Klass decides where the distribution has moved little, which {type(order).__name__} does "
        "not measure: use Stability"
      )

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    if view.drift is None:
      raise ValueError("Klass needs how far distributions have moved, View.drift")
    stable = view.drift < self.drift[:, None]
    ready = view.open & stable & (score > self.threshold[:, None])
    count = jnp.maximum(LladaCounts().count(view), 1)
    return jnp.where(jnp.any(ready, axis=1)[:, None], ready, first(score, view.open, count))
