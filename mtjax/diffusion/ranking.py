"""Positions of a row by rank: the first so many of them."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def ranking(score: Float[Array, "B L"], among: Bool[Array, "B L"]) -> Int[Array, "B L"]:
  """Returns positions per row from the highest score to the lowest; those not `among` stand last.

  Among equals the leftmost comes first, so that the order is the same on every machine.
  """
  return jnp.lexsort((-score, ~among), axis=-1).astype(jnp.int32)


def ranks(score: Float[Array, "B L"], among: Bool[Array, "B L"]) -> Int[Array, "B L"]:
  """Returns every position's place in `ranking`, from 0."""
  order = ranking(score, among)
  place = jnp.broadcast_to(jnp.arange(score.shape[1], dtype=jnp.int32), score.shape)
  return jnp.put_along_axis(jnp.zeros_like(order), order, place, axis=1, inplace=False)


def first(
  score: Float[Array, "B L"], among: Bool[Array, "B L"], count: Int[Array, " B"]
) -> Bool[Array, "B L"]:
  """Returns the `count` positions `among` with the highest scores, or all if there are fewer."""
  return among & (ranks(score, among) < count[:, None])
