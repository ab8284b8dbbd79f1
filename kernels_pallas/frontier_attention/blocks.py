"""The empty blocks of a mask, found from each block's least and greatest labels: no T x T array.

A key is visible where every coordinate of the query lies in the key's interval of that dimension.
So two integers per side and dimension prove a block of queries x keys empty, and the list
of the others is made on the device: a new mask of the same size compiles nothing.
"""

from typing import NamedTuple, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

BLOCK = 128  # fresh entries per block: queries or keys
_LEAST, _GREATEST = jnp.iinfo(jnp.int32).min, jnp.iinfo(jnp.int32).max


class Queries(NamedTuple):
  """Points, with one coordinate per dimension, and the two exceptions to the intervals."""

  stamp: Int[Array, "B K T"]
  index: Int[Array, "B T"]  # the number of the entry, whatever the order of entries is
  hidden: Int[Array, "B T"] | None = None  # index of one key that a query does not see
  own: Bool[Array, "B T"] | None = None  # entries that always see themselves


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
  """Returns the two sides of a frontier's mask; a window of positions is one more dimension."""
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
  """Returns the interval [lo, hi) of the p with |p - position| < window."""
  return position - (window - 1), position + window


def visible(
  stamp: Int[Array, "B K T"],
  lo: Int[Array, "B K T"],
  hi: Int[Array, "B K T"],
  *,
  hidden: Int[Array, "B T"] | None = None,
  own: Bool[Array, "B T"] | None = None,
) -> Bool[Array, "B T T"]:
  """Returns the T x T mask that a frontier's labels stand for.

  Entry i sees entry j iff lo[k,j] <= stamp[k,i] < hi[k,j] for all k. There are two exceptions:
  `hidden[i]` is one key that query i does not see (-1: none), and where `own[i]` is true, entry i
  sees itself.
  """
  return mask_of(*labels_of(stamp, lo, hi, hidden=hidden, own=own))


def mask_of(queries: Queries, keys: Keys) -> Bool[Array, "B T J"]:
  """Returns the mask of a block of queries and a block of keys, or of all of them."""
  point = queries.stamp[..., :, None]
  seen = jnp.all((keys.lo[..., None, :] <= point) & (point < keys.hi[..., None, :]), axis=-3)
  if queries.hidden is not None:
    seen &= queries.hidden[..., :, None] != keys.index[..., None, :]
  if queries.own is not None:
    same = queries.index[..., :, None] == keys.index[..., None, :]
    seen |= queries.own[..., :, None] & same
  return seen


def order_of(queries: Queries, keys: Keys) -> tuple[Int[Array, "B T"], Int[Array, "B T"]]:
  """Returns the orders of queries by stamp and of keys by `lo`, the first dimension first; stable.

  In these orders the mask of a permutation is a triangle. Unsorted it has hardly an empty block,
  sorted nearly half of its blocks are empty; keys that nobody sees come last, in separate blocks.
  """
  return tuple(jnp.lexsort(jnp.moveaxis(x, 1, 0)[::-1]) for x in (queries.stamp, keys.lo))


def in_order(labels: Side, order: Int[Array, "B T"]) -> Side:
  """Returns the same entries in another order."""

  def take(x):
    return jnp.take_along_axis(x, order[:, None] if x.ndim == 3 else order, axis=-1)

  return type(labels)(*(None if x is None else take(x) for x in labels))


def padded(queries: Queries, keys: Keys, query_block: int, key_block: int) -> tuple[Queries, Keys]:
  """Returns both sides padded to whole blocks; nobody sees the added keys.

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
  """Returns False only for blocks in which no query sees a key. Sizes must divide (`padded`)."""
  points, low, high = (
    _split(x, block)
    for x, block in ((queries.stamp, query_block), (keys.lo, key_block), (keys.hi, key_block))
  )
  first, last = points.min(-1)[..., None], points.max(-1)[..., None]
  some = jnp.all((last >= low.min(-1)[:, :, None]) & (first < high.max(-1)[:, :, None]), axis=1)
  if queries.own is not None:
    # The place of the same entry among the keys, which have an order of their own.
    place = jnp.argsort(keys.index, axis=1)
    own_key = jnp.take_along_axis(place, jnp.maximum(queries.index, 0) + _added(keys), axis=1)
    row = jnp.arange(own_key.shape[0])[:, None]
    query = jnp.arange(own_key.shape[1]) // query_block
    some = some.at[row, query, own_key // key_block].max(queries.own)
  return some


def _added(keys):
  """Returns the number of padding keys that sort before entry 0, per row."""
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
  """Returns which blocks of a frontier's mask are computed once its entries are sorted."""
  queries, keys = labels_of(stamp, lo, hi)
  order, key_order = order_of(queries, keys)
  sides = padded(in_order(queries, order), in_order(keys, key_order), block, block)
  return any_visible(*sides, block, block)


class Work(NamedTuple):
  """The blocks that are not empty, as a flat list; the first `count` of it are valid."""

  row: Int[Array, " W"]  # row of the batch
  query: Int[Array, " W"]
  key: Int[Array, " W"]
  count: Int[Array, ""]


def work_list(some: Bool[Array, "B I J"]) -> Work:
  """Returns the visible blocks, by row, then query block, then key block; then padding."""
  places = jnp.nonzero(some, size=some.size, fill_value=0)
  return Work(*(x.astype(jnp.int32) for x in places), jnp.sum(some, dtype=jnp.int32))
