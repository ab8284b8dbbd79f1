"""Positions by the entropy of their distribution, the lowest first."""

from jaxtyping import Array, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.order.max_probability import DEPENDS_ON_CONTEXT
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.sampling.statistics import negative_entropy
from mtjax.types import Exactness


@rule
class LowEntropy(StatelessOrder):
  """Scores are sum p log p under `View.scored`, in nats (Dream's entropy)."""

  exactness = Exactness.APPROXIMATE
  reason = DEPENDS_ON_CONTEXT

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    return negative_entropy(view.scored)
