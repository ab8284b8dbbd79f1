"""Positions by the margin between their two most probable tokens."""

from jaxtyping import Array, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.order.max_probability import DEPENDS_ON_CONTEXT
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.sampling.statistics import margin
from mtjax.types import Exactness


@rule
class TopMargin(StatelessOrder):
  """Scores are p1 - p2 under `View.scored` (Dream's topk_margin; 2502.06768)."""

  exactness = Exactness.APPROXIMATE
  reason = DEPENDS_ON_CONTEXT
  probability = True

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    return margin(view.scored)
