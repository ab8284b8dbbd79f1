"""Positions by the probability of their most probable token."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.sampling.statistics import max_probability
from mtjax.types import Exactness

# Of every order that a statistic of the model's distribution decides.
DEPENDS_ON_CONTEXT = (
  "the order depends on what was decided before: the joint distribution is kept if all of the "
  "model's conditionals agree, and those of a trained model do not"
)


@rule
class MaxProbability(StatelessOrder):
  """Scores are max p under `View.scored`, whatever token was sampled."""

  exactness = Exactness.APPROXIMATE
  reason = DEPENDS_ON_CONTEXT
  probability = True

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    return jnp.exp(max_probability(view.scored))
