"""Positions in uniformly random order."""

from jaxtyping import Array, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.random_numbers import Stream, gumbel
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class RandomPositions(StatelessOrder):
  """Scores are noise of their own in every pass (LLaDA's `random`).

  The order of masked diffusion itself: with one position per pass it is first-hitting sampling
  (2409.02908), the limit of ancestral sampling with many steps.
  """

  exactness = Exactness.LOSSLESS
  uniform = True

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    # Gumbel noise rather than uniform: its largest values do not coincide in float32.
    return gumbel(view, Stream.ORDER)
