"""The committed prefix in blocks: contiguous or in pages, with or without scales."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from kernels_pallas.frontier_attention.blocks import (
  Keys,
  Queries,
  any_visible,
  padded,
  window_interval,
)


class Cache(NamedTuple):
  """Keys and values of S slots per row; the first `lengths` are valid, others may be NaN.

  Contiguous: k, v [B, G, S, D]. In pages: k, v [P, G, page, D] and `table` [B, S / page], whose
  entries past the length may be anything. `scales`, of the keys and of the values, have the shape
  of k without D. With `first_head` the cache holds the heads of several layers, and those from it
  on are this layer's; `own_heads` says how many.
  """

  k: Float[Array, "B G S D"]
  v: Float[Array, "B G S D"]
  lengths: Int[Array, " B"]
  table: Int[Array, "B M"] | None = None
  scales: tuple[Float[Array, "B G S"], Float[Array, "B G S"]] | None = None
  position: Int[Array, "B S"] | None = None  # position of each slot, which a window needs
  first_head: Int[Array, ""] | None = None

  @property
  def capacity(self) -> int:
    return self.k.shape[2] * (1 if self.table is None else self.table.shape[1])


class Block(NamedTuple):
  """The keys and values of J slots of every row."""

  k: Float[Array, "B G J D"]
  v: Float[Array, "B G J D"]  # 0 in slots that nobody may see, if it was read as an edge
  scales: tuple[Float[Array, "B G J"], Float[Array, "B G J"]] | None
  seen: Bool[Array, "B #T J"] | None  # None: every query sees every slot


def own_heads(cache: Cache | None, heads: int) -> Cache | None:
  """Returns the cache with this layer's `heads` alone, as a copy if it holds those of others."""
  if cache is None or cache.first_head is None:
    return cache
  cut = lambda x: lax.dynamic_slice_in_dim(x, cache.first_head, heads, axis=1)  # noqa: E731
  scales = None if cache.scales is None else tuple(map(cut, cache.scales))
  return cache._replace(k=cut(cache.k), v=cut(cache.v), scales=scales, first_head=None)


def contiguous(cache: Cache) -> Cache:
  """Returns the whole prefix without pages, as a copy."""
  if cache.table is None:
    return cache
  return cache._replace(**_in_pages(cache, cache.table), table=None)


def _in_pages(cache: Cache, table: Int[Array, "B M"]) -> dict:
  def read(x):
    x = jnp.take(x, table, axis=0, mode="clip").swapaxes(1, 2)  # B G M page ...
    return x.reshape(*x.shape[:2], -1, *x.shape[4:])

  scales = None if cache.scales is None else tuple(read(x) for x in cache.scales)
  return dict(k=read(cache.k), v=read(cache.v), scales=scales)


def block_size(cache: Cache, limit: int) -> int:
  """Returns the number of slots per block, which is a whole number of pages, at least one."""
  if cache.table is None:
    return min(limit, cache.capacity)
  page = cache.k.shape[2]
  return page * min(max(limit // page, 1), cache.table.shape[1])


def read(
  cache: Cache,
  index: Int[Array, ""] | int,
  size: int,
  *,
  edge: bool,
  heads: int,
  position: Int[Array, "B T"] | None = None,
  window: int | None = None,
) -> Block:
  """Reads slots index * size, ... of every row; `edge`: some query does not see all of them.

  If the capacity is no multiple of size, the last block begins earlier and hides repeated slots.
  `heads` is the number of this layer's heads.
  """
  first = index * size
  start = jnp.minimum(first, cache.capacity - size)
  if cache.table is None:
    head = 0 if cache.first_head is None else cache.first_head

    def cut(x):
      sizes = (x.shape[0], heads, size, *x.shape[3:])
      return lax.dynamic_slice(x, (0, head, start, *[0] * (x.ndim - 3)), sizes)

    parts: dict[str, Any] = dict(k=cut(cache.k), v=cut(cache.v))
    parts["scales"] = None if cache.scales is None else tuple(map(cut, cache.scales))
  else:
    page = cache.k.shape[2]
    table = lax.dynamic_slice_in_dim(cache.table, start // page, size // page, axis=1)
    parts = _in_pages(cache, table)
  if not edge:
    return Block(**parts, seen=None)
  slot = start + jnp.arange(size)
  filled = (slot >= first) & (slot < cache.lengths[:, None])
  zero = lambda x: jnp.where(_over(filled, x), x, 0).astype(x.dtype)  # noqa: E731
  parts["v"] = zero(parts["v"])
  if parts["scales"] is not None:
    parts["scales"] = tuple(map(zero, parts["scales"]))
  seen = filled[:, None]
  if window is not None:
    key = lax.dynamic_slice_in_dim(cache.position, start, size, axis=1)[:, None]
    lo, hi = window_interval(key, window)
    seen &= (lo <= position[..., None]) & (position[..., None] < hi)
  return Block(**parts, seen=seen)


def _over(filled, x):
  return filled[:, None, :, None] if x.ndim == 4 else filled[:, None]


def in_window(
  cache: Cache, size: int, position: Int[Array, "B T"], window: int
) -> tuple[Int[Array, " J"], Int[Array, ""]]:
  """Returns the blocks with a slot that some query of some row sees, in order, and their number.

  They are found from the least and greatest position of each block, as positions have any order.
  """
  count = -(-cache.capacity // size)
  slot = jnp.arange(cache.capacity)
  filled = slot < cache.lengths[:, None]
  lo, hi = window_interval(cache.position, window)
  ends = jnp.iinfo(jnp.int32)
  more = ((0, 0), (0, count * size - cache.capacity))

  def of_blocks(x, smallest, empty):
    x = jnp.pad(jnp.where(filled, x, empty), more, constant_values=empty)
    x = x.reshape(x.shape[0], count, size)
    return (x.min if smallest else x.max)(axis=2)

  first, last = position.min(axis=1)[:, None], position.max(axis=1)[:, None]
  some = (last >= of_blocks(lo, True, ends.max)) & (first < of_blocks(hi, False, ends.min))
  some = jnp.any(some, axis=0)
  return jnp.nonzero(some, size=count, fill_value=0)[0], jnp.sum(some, dtype=jnp.int32)


def some_of_cache(
  cache: Cache,
  size: int,
  queries: Queries,
  tile: int,
  position: Int[Array, "B T"] | None,
  window: int | None,
) -> Bool[Array, "B I J"]:
  """Returns whether some entry of a tile sees some slot of a block, per tile and block."""
  tiles = queries.index.shape[1] // tile
  count = -(-cache.capacity // size)
  filled = (jnp.arange(count) * size) < cache.lengths[:, None]
  if window is None:
    return jnp.broadcast_to(filled[:, None], (filled.shape[0], tiles, count))
  more = ((0, 0), (0, tiles * tile - position.shape[1]))
  position = jnp.pad(position, more, mode="edge")
  index = jnp.broadcast_to(jnp.arange(cache.capacity), cache.position.shape)
  nobody = index >= cache.lengths[:, None]
  lo, hi = window_interval(cache.position, window)
  keys = Keys(
    jnp.where(nobody, jnp.iinfo(jnp.int32).max, lo)[:, None],
    jnp.where(nobody, jnp.iinfo(jnp.int32).min, hi)[:, None],
    index,
  )
  points = Queries(position[:, None], queries.index)
  points, keys = padded(points, keys, tile, size)
  return any_visible(points, keys, tile, size) & filled[:, None]
