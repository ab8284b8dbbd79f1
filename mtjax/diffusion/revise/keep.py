"""What is decided stays."""

from jaxtyping import Array, Bool, PyTree

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import AnyTransferRevise, only_written
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import Revision, View
from mtjax.types import Exactness


@rule
class KeepDecided(AnyTransferRevise):
  """No position is decided twice: masked diffusion itself."""

  exactness = Exactness.LOSSLESS
  reason = ""
  revises = False

  def start(self, batch: int, size: int) -> PyTree:
    return ()

  def revise(
    self, state: PyTree, view: View, candidates: CanvasCandidates, chosen: Bool[Array, "B L"]
  ) -> tuple[Revision, PyTree]:
    return only_written(chosen), state
