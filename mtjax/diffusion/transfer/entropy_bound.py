"""As many positions as a bound on their mutual information allows."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import AnyOrderTransfer
from mtjax.diffusion.ranking import first, ranking
from mtjax.diffusion.rule import PerRow, Range, rule
from mtjax.diffusion.view import View
from mtjax.sampling.statistics import negative_entropy
from mtjax.types import Exactness


@rule
class EntropyBound(AnyOrderTransfer):
  """A pass decides the largest prefix U of the order with sum_U H - max_U H <= gamma (2505.24857).

  H is the entropy at a position under `View.scored`, in nats. The left side bounds the mutual
  information of the tokens of U, and so what sampling them independently loses; it is 0 for one
  position, which is decided in any case. In the order of `LowEntropy` it is the published
  cumsum(H) - H <= gamma.
  """

  gamma: PerRow = 0.1
  ranges: ClassVar[dict[str, Range]] = {"gamma": Range(low=0.0)}
  exactness = Exactness.APPROXIMATE
  reason = (
    "the tokens of one pass are sampled independently of each other; the bound on what that loses "
    "holds for a model whose conditionals all agree"
  )
  advances = True

  def count(self, view: View, score: Float[Array, "B L"]) -> Int[Array, " B"]:
    """Returns the number of positions of this pass."""
    order = ranking(score, view.open)
    entropy = jnp.where(view.open, jnp.maximum(-negative_entropy(view.scored), 0.0), 0.0)
    entropy = jnp.take_along_axis(entropy, order, axis=1)
    bound = jnp.cumsum(entropy, axis=1) - jax.lax.cummax(entropy, axis=1)
    fits = (bound <= self.gamma[:, None]) & (jnp.arange(order.shape[1]) < view.num_open[:, None])
    # Rounding may make the bound fall by a little: the prefix ends at its first excess.
    return jnp.maximum(jnp.sum(jnp.cumprod(fits, axis=1), axis=1, dtype=jnp.int32), 1)

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    return first(score, view.open, self.count(view, score))
