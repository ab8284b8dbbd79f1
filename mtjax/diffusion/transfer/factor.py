"""As many positions as their lowest confidence allows."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import ProbabilityTransfer
from mtjax.diffusion.ranking import first, ranking
from mtjax.diffusion.rule import PerRow, Range, rule
from mtjax.diffusion.transfer.llada_counts import INDEPENDENT
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class Factor(ProbabilityTransfer):
  """A pass decides the n best positions, for the largest n with (n + 1) (1 - c_n) <= factor.

  c_1 >= c_2 >= ... are the scores; the best position is decided in any case. Fast-dLLM (2505.22618,
  theorem 1): with factor 1 the greedy tokens are those of deciding one after the other, if the
  conditionals are exact. The condition holds up to an n and from then on not, because 1 - c_n grows
  with n.

  Its published code (`get_transfer_index_dynamic`) decides one position too many when only the last
  masked one fails the condition. This is the definition.
  """

  factor: PerRow = 1.0
  ranges: ClassVar[dict[str, Range]] = {"factor": Range(low=0.0, open_low=True)}
  exactness = Exactness.APPROXIMATE
  reason = INDEPENDENT
  advances = True

  def count(self, view: View, score: Float[Array, "B L"]) -> Int[Array, " B"]:
    """Returns the number of positions of this pass."""
    order = ranking(score, view.open)
    sorted_score = jnp.take_along_axis(score, order, axis=1)
    n = jnp.arange(1, score.shape[1] + 1)
    fits = (n <= view.num_open[:, None]) & (sorted_score >= 1.0 - self.factor[:, None] / (n + 1))
    return jnp.maximum(jnp.sum(fits, axis=1, dtype=jnp.int32), 1)

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    return first(score, view.open, self.count(view, score))
