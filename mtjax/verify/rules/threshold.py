"""Thresholds on the target's probabilities: more is accepted than is exact. APPROXIMATE."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.sharding import vocabulary
from mtjax.verify.probs import normalise, without_tokens
from mtjax.verify.rules.delta import first_of_equals
from mtjax.verify.walk import Coupling, NodeRule


def threshold(single: float, cumulative: float) -> NodeRule:
  """Returns SGLang's `tree_speculative_sampling_target_only` as a node rule.

  With one uniform u: the first child is accepted whose p(x) >= single, or up to which the
  children's summed p is at least u cumulative; else y ~ p without the children. At (1, 1) this is
  `delta`, lossless. Below, drafted tokens gain the probability that the others lose. Raises
  ValueError for a threshold outside (0, 1].
  """
  for name, value in (("single", single), ("cumulative", cumulative)):
    if not 0 < value <= 1:
      raise ValueError(f"{name} must be above 0 and at most 1 (1: exact), got {value}")

  def rule(
    p: Float[Array, " V"],
    q: Float[Array, " V"] | None,
    token: Int[Array, " C"],
    valid: Bool[Array, " C"],
  ) -> Coupling:
    first = first_of_equals(token, valid)
    chance = jnp.where(first, vocabulary.at(p, token), 0)
    reach = jnp.minimum(jnp.cumsum(chance) / cumulative, 1)
    reach = jax.lax.cummax(jnp.where(first & (chance >= single), 1, reach))
    return Coupling(
      accept=jnp.diff(reach, prepend=jnp.zeros_like(reach[:1])),
      residual=normalise(without_tokens(p, token, valid), p),
    )

  return rule
