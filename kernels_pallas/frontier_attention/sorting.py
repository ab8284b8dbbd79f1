"""Entries in the order in which their mask has the most empty blocks, and back again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from kernels_pallas.frontier_attention import blocks
from kernels_pallas.frontier_attention.blocks import Keys, Queries


class SortedLabels(NamedTuple):
  """Of a row's entries as queries and as keys (`blocks.order_of`); None: they stay as they are."""

  queries: Int[Array, "B T"] | None = None
  keys: Int[Array, "B T"] | None = None


def of(queries: Queries, keys: Keys) -> tuple[SortedLabels, Queries, Keys]:
  """Both sides in order."""
  order = SortedLabels(*blocks.order_of(queries, keys))
  return order, blocks.in_order(queries, order.queries), blocks.in_order(keys, order.keys)


def in_order(
  x: Shaped[Array, "B ..."], order: Int[Array, "B T"] | None, axis: int = 1
) -> jax.Array:
  """Entries, along `axis`, in another order."""
  if order is None:
    return x
  others = tuple(n for n in range(1, x.ndim) if n != axis)
  return jnp.take_along_axis(x, jnp.expand_dims(order, others), axis)


def back(order: Int[Array, "B T"] | None) -> Int[Array, "B T"] | None:
  """The order that undoes this one."""
  return None if order is None else jnp.argsort(order, axis=1)


def where_seen(
  queries: Queries, keys: Keys, *arrays: Float[Array, "B G T D"]
) -> tuple[Float[Array, "B G T D"], ...]:
  """Keys that nobody sees as zeros: they may be NaN, and 0 * NaN is NaN."""
  used = jnp.any(blocks.mask_of(queries, keys), axis=1)[:, None, :, None]
  return tuple(jnp.where(used, x, 0).astype(x.dtype) for x in arrays)
