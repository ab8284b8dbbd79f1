"""The first position of the order in every pass."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import AnyOrderTransfer
from mtjax.diffusion.ranking import first
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class OneByOne(AnyOrderTransfer):
  """A pass decides one position, the open one of the highest score.

  What every faster rule approximates: no token is sampled without those decided before it.
  """

  exactness = Exactness.LOSSLESS
  advances = True

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    return first(score, view.open, jnp.ones_like(view.step))
