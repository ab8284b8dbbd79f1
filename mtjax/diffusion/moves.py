"""Where the entries of a block come from after some were deleted, and masks were inserted."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped


def sources(deleted: Bool[Array, "B L"], inserted: Bool[Array, "B L"]) -> Int[Array, "B L"]:
  """Returns the place that each place's entry had before; -1: a new mask.

  A deleted entry leaves, and those after it move to the left. Before an entry that is `inserted` a
  mask is put, and those after it move to the right. The block keeps its length: masks fill its end,
  or entries beyond its end are lost (LLaDA2.2).
  """
  size = deleted.shape[1]
  width = jnp.where(deleted, 0, 1 + inserted)
  end = jnp.cumsum(width, axis=1)
  place = jnp.where(deleted, size, end - 1)  # an inserted mask stands before its entry
  rows = jnp.arange(deleted.shape[0])[:, None]
  before = jnp.broadcast_to(jnp.arange(size), deleted.shape)
  return jnp.full(deleted.shape, -1).at[rows, place].set(before, mode="drop")


def moved(
  values: Shaped[Array, "B L"], source: Int[Array, "B L"], fill: int | bool
) -> Shaped[Array, "B L"]:
  """Returns the values at their new places, and `fill` at those of new masks."""
  there = jnp.take_along_axis(values, jnp.maximum(source, 0), axis=1)
  return jnp.where(source >= 0, there, fill)
