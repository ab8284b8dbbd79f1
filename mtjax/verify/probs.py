"""Small operations on probability vectors that every rule needs; no 0/0, any float dtype."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.sharding import vocabulary


def normalise(
  mass: Float[Array, " V"], fallback: Float[Array, " V"] | None = None
) -> Float[Array, " V"]:
  """Returns mass / sum(mass); where the sum is 0, `fallback`, or zeros.

  A residual of sum 0 means that the children were accepted with certainty: a sample from
  it is emitted only by a rounding error, and then the distribution before the subtraction is safe.
  """
  total = vocabulary.total(mass)
  scaled = mass / jnp.where(total > 0, total, 1)
  return scaled if fallback is None else jnp.where(total > 0, scaled, fallback)


def difference(p: Float[Array, " V"], q: Float[Array, " V"]) -> Float[Array, " V"]:
  """Returns norm((p - q)+), the residual after a refused sample from q; p if that is empty."""
  return normalise(jnp.maximum(p - q, 0), p)


def without(probs: Float[Array, " V"], token: Int[Array, ""]) -> Float[Array, " V"]:
  """Returns `probs` given that the sample is not `token`; zeros if no other token is possible."""
  place = vocabulary.index_of(probs, token)
  return normalise(probs.at[place].set(0, mode="drop"))


def ratio(p: Float[Array, "..."], q: Float[Array, "..."]) -> Float[Array, "..."]:
  """Returns min(1, p / q), and 0 where p is 0, whatever q is."""
  return jnp.where(q > p, p / jnp.where(q > p, q, 1), p > 0)


def without_tokens(
  probs: Float[Array, " V"], token: Int[Array, " C"], drop: Array
) -> Float[Array, " V"]:
  """Returns `probs` with the tokens marked in `drop` set to 0, not normalised."""
  place = vocabulary.index_of(probs, token)
  return probs.at[jnp.where(drop, place, probs.shape[0])].set(0, mode="drop")
