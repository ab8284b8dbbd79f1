"""Which blocks of a mask are empty, by the least and greatest labels of each: no T x T array.

A key is visible where every coordinate of the query lies in the key's interval of that dimension.
So a block of queries x keys is provably empty from two and two integers a dimension, and the list
of the others is made on the device: a new mask of the same size compiles nothing.
"""

from typing import NamedTuple, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

BLOCK = 128  # fresh entries: queries or keys
_LEAST, _GREATEST = jnp.iinfo(jnp.int32).min, jnp.iinfo(jnp.int32).max


class Queries(NamedTuple):
  """Points, one coordinate a dimension, and the two exceptions to the intervals."""

  stamp: Int[Array, "B K T"]
  index: Int[Array, "B T"]  # which entry this is, in whatever order they stand
  hidden: Int[Array, "B T"] | None = None  # one key (its index) that a query does not see
  own: Bool[Array, "B T"] | None = None  # entries that see themselves whatever the intervals say


class Keys(NamedTuple):
  """Intervals [lo, hi); one that is empty in some dimension is empty in all, at +infinity."""

  lo: Int[Array, "B K T"]
  hi: Int[Array, "B K T"]
  index: Int[Array, "B T"]


Side = TypeVar("Side", Queries, Keys)


def labels_of(
  stamp: Int[Array, "B K T"],
  lo: Int[Array, "B K T"],
  hi: Int[Array, "B K T"],
  *,
  hidden: Int[Array, "B T"] | None = None,
  own: Bool[Array, "B T"] | None = None,
  position: Int[Array, "B T"] | None = None,
  window: int | None = None,
) -> tuple[Queries, Keys]:
  """The two sides of a frontier's mask; a window of positions is one more dimension."""
  if window is not None:
    near = window_interval(position, window)
    stamp, lo, hi = (
      jnp.concatenate([old, new[:, None]], axis=1)
      for old, new in zip((stamp, lo, hi), (position, *near), strict=True)
    )
  index = jnp.broadcast_to(jnp.arange(stamp.shape[2]), stamp[:, 0].shape)
  nobody = jnp.any(lo >= hi, axis=1, keepdims=True)
  keys = Keys(jnp.where(nobody, _GREATEST, lo), jnp.where(nobody, _LEAST, hi), index)
  return Queries(stamp, index, hidden, own), keys


def window_interval(
  position: Int[Array, "*B J"], window: int
) -> tuple[Int[Array, "*B J"], Int[Array, "*B J"]]:
  """The p with |p - position| < window, as [lo, hi)."""
  return position - (window - 1), position + window


def visible(
  stamp: Int[Array, "B K T"],
  lo: Int[Array, "B K T"],
  hi: Int[Array, "B K T"],
  *,
  hidden: Int[Array, "B T"] | None = None,
  own: Bool[Array, "B T"] | None = None,
) -> Bool[Array, "B T T"]:
  """The T x T mask that a frontier's labels stand for: entry i sees entry j iff
  lo[k,j] <= stamp[k,i] < hi[k,j] for all k.

  `hidden[i]` names one key that query i does not see in spite of that (-1: none); `own[i]` lets
  entry i see itself in spite of that.
  """
  return mask_of(*labels_of(stamp, lo, hi, hidden=hidden, own=own))


def mask_of(queries: Queries, keys: Keys) -> Bool[Array, "B T J"]:
  """The mask of a block of queries and a block of keys, or of all."""
  point = queries.stamp[..., :, None]
  seen = jnp.all((keys.lo[..., None, :] <= point) & (point < keys.hi[..., None, :]), axis=-3)
  if queries.hidden is not None:
    seen &= queries.hidden[..., :, None] != keys.index[..., None, :]
  if queries.own is not None:
    same = queries.index[..., :, None] == keys.index[..., None, :]
    seen |= queries.own[..., :, None] & same
  return seen


def order_of(queries: Queries, keys: Keys) -> tuple[Int[Array, "B T"], Int[Array, "B T"]]:
  """Queries by their stamps, keys by where they begin; the first dimension first, ties as they are.

  In these orders a permutation's mask is a triangle. As it stands it has hardly an empty block,
  sorted it has nearly half; keys that nobody sees come last, in blocks of their own.
  """
  return tuple(jnp.lexsort(jnp.moveaxis(x, 1, 0)[::-1]) for x in (queries.stamp, keys.lo))


def in_order(labels: Side, order: Int[Array, "B T"]) -> Side:
  """The same entries in another order."""

  def take(x):
    return jnp.take_along_axis(x, order[:, None] if x.ndim == 3 else order, axis=-1)

  return type(labels)(*(None if x is None else take(x) for x in labels))


def padded(queries: Queries, keys: Keys, query_block: int, key_block: int) -> tuple[Queries, Keys]:
  """Both rounded up to whole blocks: added keys are seen by nobody.

  Added queries repeat the last stamps, which widens no block; nobody reads their outputs.
  """

  def pad(x, block, **how):
    width = ((0, 0),) * (x.ndim - 1) + ((0, -x.shape[-1] % block),)
    return jnp.pad(x, width, **how)

  return (
    Queries(
      pad(queries.stamp, query_block, mode="edge"),
      pad(queries.index, query_block, constant_values=-1),
      None if queries.hidden is None else pad(queries.hidden, query_block, mode="edge"),
      None if queries.own is None else pad(queries.own, query_block),
    ),
    Keys(
      pad(keys.lo, key_block, constant_values=_GREATEST),
      pad(keys.hi, key_block, constant_values=_LEAST),
      pad(keys.index, key_block, constant_values=-2),
    ),
  )


def any_visible(
  queries: Queries, keys: Keys, query_block: int, key_block: int
) -> Bool[Array, "B I J"]:
  """False only for blocks in which no query sees a key. Sizes must divide (see `padded`)."""
  points, low, high = (
    _split(x, block)
    for x, block in ((queries.stamp, query_block), (keys.lo, key_block), (keys.hi, key_block))
  )
  first, last = points.min(-1)[..., None], points.max(-1)[..., None]
  some = jnp.all((last >= low.min(-1)[:, :, None]) & (first < high.max(-1)[:, :, None]), axis=1)
  if queries.own is not None:
    # The same entry's place among the keys, wherever the orders put it.
    place = jnp.argsort(keys.index, axis=1)
    own_key = jnp.take_along_axis(place, jnp.maximum(queries.index, 0) + _added(keys), axis=1)
    row = jnp.arange(own_key.shape[0])[:, None]
    query = jnp.arange(own_key.shape[1]) // query_block
    some = some.at[row, query, own_key // key_block].max(queries.own)
  return some


def _added(keys):
  """How many padding keys sort before entry 0, in each row."""
  return jnp.sum(keys.index < 0, axis=1, keepdims=True)


def _split(x, block):
  return x.reshape(*x.shape[:-1], x.shape[-1] // block, block)


def any_visible_blocks(
  stamp: Int[Array, "B K T"],
  lo: Int[Array, "B K T"],
  hi: Int[Array, "B K T"],
  *,
  block: int = BLOCK,
) -> Bool[Array, "B I J"]:
  """The blocks that are computed of a frontier's mask, once its entries are put in order."""
  queries, keys = labels_of(stamp, lo, hi)
  order, key_order = order_of(queries, keys)
  sides = padded(in_order(queries, order), in_order(keys, key_order), block, block)
  return any_visible(*sides, block, block)


class Work(NamedTuple):
  """The blocks that are not empty, as a flat list of which the first `count` are work."""

  row: Int[Array, " W"]  # of the batch
  query: Int[Array, " W"]
  key: Int[Array, " W"]
  count: Int[Array, ""]


def work_list(some: Bool[Array, "B I J"]) -> Work:
  """Blocks with something to see, by row, then query block, then key block; then padding."""
  places = jnp.nonzero(some, size=some.size, fill_value=0)
  return Work(*(x.astype(jnp.int32) for x in places), jnp.sum(some, dtype=jnp.int32))
