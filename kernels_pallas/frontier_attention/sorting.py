"""Entries in the order in which their mask has the most empty blocks, and back again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from kernels_pallas.frontier_attention import blocks
from kernels_pallas.frontier_attention.blocks import Keys, Queries


class SortedLabels(NamedTuple):
  """The orders of a row's entries as queries and as keys (`blocks.order_of`); None: unchanged."""

  queries: Int[Array, "B T"] | None = None
  keys: Int[Array, "B T"] | None = None


def of(queries: Queries, keys: Keys) -> tuple[SortedLabels, Queries, Keys]:
  """Returns the orders, and both sides sorted by them."""
  order = SortedLabels(*blocks.order_of(queries, keys))
  return order, blocks.in_order(queries, order.queries), blocks.in_order(keys, order.keys)


def in_order(
  x: Shaped[Array, "B ..."], order: Int[Array, "B T"] | None, axis: int = 1
) -> jax.Array:
  """Returns the entries along `axis` in another order."""
  if order is None:
    return x
  others = tuple(n for n in range(1, x.ndim) if n != axis)
  return jnp.take_along_axis(x, jnp.expand_dims(order, others), axis)


def back(order: Int[Array, "B T"] | None) -> Int[Array, "B T"] | None:
  """Returns the inverse of an order."""
  return None if order is None else jnp.argsort(order, axis=1)


def where_seen(
  queries: Queries, keys: Keys, *arrays: Float[Array, "B G T D"]
) -> tuple[Float[Array, "B G T D"], ...]:
  """Returns the arrays with 0 for keys that nobody sees: they may be NaN, and 0 * NaN is NaN."""
  used = jnp.any(blocks.mask_of(queries, keys), axis=1)[:, None, :, None]
  return tuple(jnp.where(used, x, 0).astype(x.dtype) for x in arrays)
