"""Positions from left to right."""

from jaxtyping import Array, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class LeftToRight(StatelessOrder):
  """Scores are -position. One position per pass samples the product of the network's conditionals.

  A fixed order has one joint distribution; the conditionals of another order need not agree.
  """

  exactness = Exactness.LOSSLESS

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    return -view.position.astype(view.scored.dtype)
