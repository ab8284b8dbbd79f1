"""LLaDA's counts: equal numbers of positions per pass, the remainder first."""

from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import AnyOrderTransfer
from mtjax.diffusion.ranking import first
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.types import Exactness

# Of every rule that may decide several positions in a pass.
INDEPENDENT = "the tokens of one pass are sampled independently of each other"


@rule
class LladaCounts(AnyOrderTransfer):
  """Pass i of a block with n masked positions decides n // steps + (i < n % steps) of them.

  `get_num_transfer_tokens` of LLaDA's `generate.py`: [3, 2, 2] for 7 positions in 3 passes. With
  more passes than positions the last passes decide nothing.
  """

  exactness = Exactness.APPROXIMATE
  reason = INDEPENDENT
  advances = True

  def count(self, view: View) -> Int[Array, " B"]:
    """Returns the number of positions of this pass."""
    return view.total // view.steps + (view.step < view.total % view.steps)

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    return first(score, view.open, self.count(view))
