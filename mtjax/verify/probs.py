"""Small operations on probability vectors that every rule needs; no 0/0, any float dtype."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def normalise(
  mass: Float[Array, " V"], fallback: Float[Array, " V"] | None = None
) -> Float[Array, " V"]:
  """mass / its sum; where that is 0, `fallback`, or zeros.

  A residual of sum 0 means that the children were accepted with certainty: what is drawn from it
  is never emitted but for rounding, and the law that the residual was taken from is safe then.
  """
  total = jnp.sum(mass)
  scaled = mass / jnp.where(total > 0, total, 1)
  return scaled if fallback is None else jnp.where(total > 0, scaled, fallback)


def difference(p: Float[Array, " V"], q: Float[Array, " V"]) -> Float[Array, " V"]:
  """norm((p - q)+), the law after a refused draw from q; p if that is empty."""
  return normalise(jnp.maximum(p - q, 0), p)


def without(probs: Float[Array, " V"], token: Int[Array, ""]) -> Float[Array, " V"]:
  """The law given that `token` is not drawn; zeros if nothing else could be."""
  return normalise(probs.at[token].set(0))


def ratio(p: Float[Array, "..."], q: Float[Array, "..."]) -> Float[Array, "..."]:
  """min(1, p / q), and 0 where p is 0, whatever q: what the target lacks is never accepted."""
  return jnp.where(q > p, p / jnp.where(q > p, q, 1), p > 0)


def without_tokens(
  probs: Float[Array, " V"], token: Int[Array, " C"], drop: Array
) -> Float[Array, " V"]:
  """`probs` with the tokens marked in `drop` set to 0, not normalised."""
  return probs.at[jnp.where(drop, token, probs.shape[0])].set(0, mode="drop")
