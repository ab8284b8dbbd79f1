"""The layout of entries for the TPU kernels: sorted, in tiles of rows and blocks of keys.

Rows are entries x heads of a group, padded together. A kernel computes who sees whom again from the
labels of rows and keys.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import get_abstract_mesh
from jaxtyping import Array, Float, Int, Shaped

from kernels_pallas.frontier_attention import blocks, sorting
from kernels_pallas.frontier_attention.blocks import Keys, Queries
from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.sorting import SortedLabels

_LANES = 128
SCORES = 1 << 19  # rows x keys x heads at once: more would not fit beside large pages
_NO_KEY = -3  # an index that no key has, not even padding (-2)


# All that a choice of sizes looks at.
WithShape = jax.Array | jax.ShapeDtypeStruct


class TileShape(NamedTuple):
  """Static sizes of one call."""

  tile: int  # entries per tile of rows
  rows: int  # rows per tile
  tiles: int
  block: int  # fresh entries per block
  fresh: int  # blocks of fresh entries per row
  page: int  # slots per block of the cache
  cached: int  # blocks of the cache per row; 0: no cache
  dims: int  # number of dimensions of the intervals
  turned: bool  # the cache has its slots on the lanes: see `tpu.kernel._call`
  cores: int  # number of cores that share the key heads in the forward kernel


class TileSizes(NamedTuple):
  """Maximum fresh entries and cache slots per block (or one page), and rows per tile."""

  fresh: int = 128
  cache: int = 256
  rows: int = 256
  heads: int = 8  # maximum key heads per step of the gradient
  cores: int | None = (
    None  # cores to share the key heads, if they divide; None: those of the device
  )

  @classmethod
  def of(cls, fresh: int, cache: int) -> "TileSizes":
    """Returns sizes for `block_sizes` of `frontier_attention`."""
    return cls(fresh, cache)


def fitting(
  q: WithShape, k: WithShape, cache: Cache | None, sizes: TileSizes = TileSizes()
) -> tuple[int, int] | None:
  """Returns (rows per tile, slots per block of the cache) that fit into VMEM; None: nothing does.

  They are as large as `sizes`, or halved as often as many or wide key heads need.
  """
  rows = min(q.shape[1] * (q.shape[2] // k.shape[1]), sizes.rows)
  if cache is None or cache.table is not None:
    pages = [sizes.cache if cache is None else cache.k.shape[2]]
  else:
    pages = [min(size, cache.capacity) for size in (sizes.cache, max(sizes.cache // 2, _LANES))]
  for page in pages:
    height = rows
    while height > 32 and _bytes(q, k, cache, height, page, sizes) > _budget():
      height //= 2
    if _bytes(q, k, cache, height, page, sizes) <= _budget():
      return sizes.rows if height == rows else height, page
  return None


def _bytes(q, k, cache: Cache | None, rows: int, page: int, sizes: TileSizes) -> int:
  """Returns the bytes of the forward kernel, no less than compiled (docs/kernel_table.md)."""
  heads, width, item = k.shape[1] // _cores(k, sizes), q.shape[3], q.dtype.itemsize
  block = min(sizes.fresh, q.shape[1])
  keys = 4 * block * width * item  # keys and values have two buffers, as all that is copied
  if cache is not None:
    keys += 4 * page * width * cache.k.dtype.itemsize
  widest = block if cache is None else max(block, page)
  together = min(heads, max(SCORES // (rows * widest), 1))
  row = 4 * width * item + 8 * _LANES + 4 * (2 * _LANES + width)  # q, output, sums of a head
  return heads * (rows * row + keys) + together * rows * widest * (4 + item)


def _budget() -> int:
  return vmem_limit() - (1 << 20)


def vmem_limit() -> int:
  """Returns the bytes that a kernel may use.

  These are the 16 MiB of chips up to v4, which is also the default limit of XLA, or half of the
  least memory of newer chips.
  """
  device = get_abstract_mesh().abstract_device or jax.devices()[0]
  old = any(version in device.device_kind for version in ("v2", "v3", "v4"))
  return (32 if device.platform == "tpu" and not old else 16) << 20


def cores_here() -> int:
  """Returns the cores of a TPU device: two on v4 and v5p, where a device is a chip; else one.

  Of the abstract device that is being compiled for, if there is one, else of this process.
  """
  device = get_abstract_mesh().abstract_device or jax.devices()[0]
  return device.num_cores if device.platform == "tpu" else 1


def _cores(k, sizes: TileSizes) -> int:
  cores = cores_here() if sizes.cores is None else sizes.cores
  return cores if k.shape[1] % cores == 0 else 1


def shape_of(
  q: WithShape, k: WithShape, queries: Queries, cache: Cache | None, sizes: TileSizes
) -> TileShape:
  block = sizes.fresh
  _, T, H, _ = q.shape
  # `why_not_tpu` has refused sizes that do not fit; the interpreter accepts them.
  rows, page = fitting(q, k, cache, sizes) or (sizes.rows, sizes.cache)
  group = H // k.shape[1]
  sublanes = 32 // q.dtype.itemsize
  tile = T if T * group <= rows else max(rows // group, 1)
  if tile < T and tile * group % sublanes:
    tile = max(tile // sublanes * sublanes, sublanes)
  cached = 0
  if cache is not None:
    page = cache.k.shape[2] if cache.table is not None else min(page, cache.capacity)
    cached = -(-cache.capacity // page)
  block = min(block, -(-T // sublanes) * sublanes)
  return TileShape(
    tile=tile,
    rows=-(-tile * group // sublanes) * sublanes,
    tiles=-(-T // tile),
    block=block,
    fresh=-(-T // block),
    page=page,
    cached=cached,
    dims=queries.stamp.shape[1],
    turned=cache is not None and q.shape[3] % _LANES > 0,
    cores=_cores(k, sizes),
  )


def ordered(queries: Queries, keys: Keys, shape: TileShape) -> tuple[SortedLabels, Queries, Keys]:
  """Returns both sides sorted, and padded to whole tiles and blocks."""
  order = SortedLabels()
  if max(shape.tiles, shape.fresh) > 1:
    order, queries, keys = sorting.of(queries, keys)
  return order, *blocks.padded(queries, keys, shape.tile, shape.block)


def rows_of(x: Shaped[Array, "B T H D"], heads: int, shape: TileShape) -> Shaped[Array, "B G N D"]:
  """Returns tiles x rows: entries of a tile x heads of the group, then padding by 0."""
  B, T, H, D = x.shape
  x = jnp.pad(x, ((0, 0), (0, shape.tiles * shape.tile - T), (0, 0), (0, 0)))
  x = x.reshape(B, shape.tiles, shape.tile, heads, H // heads, D).transpose(0, 3, 1, 2, 4, 5)
  x = x.reshape(B, heads, shape.tiles, -1, D)
  x = jnp.pad(x, ((0, 0),) * 3 + ((0, shape.rows - x.shape[3]), (0, 0)))
  return x.reshape(B, heads, -1, D)


def entries_of(
  x: Shaped[Array, "B G N D"], T: int, H: int, shape: TileShape
) -> Shaped[Array, "B T H D"]:
  """Returns entries from rows: the inverse of `rows_of`."""
  B, heads, _, width = x.shape
  x = x.reshape(B, heads, shape.tiles, shape.rows, width)[:, :, :, : shape.tile * (H // heads)]
  x = x.reshape(B, heads, shape.tiles, shape.tile, H // heads, width).transpose(0, 2, 3, 1, 4, 5)
  return x.reshape(B, -1, H, width)[:, :T]


def whole_blocks(x: Float[Array, "B G T D"], shape: TileShape) -> Float[Array, "B G M D"]:
  """Returns keys or values, padded by 0 to whole blocks."""
  return jnp.pad(x, ((0, 0), (0, 0), (0, shape.fresh * shape.block - x.shape[2]), (0, 0)))


def points_of(
  queries: Queries, position: Int[Array, "B T"] | None, group: int, shape: TileShape
) -> Int[Array, "B N C"]:
  """Returns the labels of rows, in columns: stamps, hidden key, own index, position."""
  none = jnp.full_like(queries.index, _NO_KEY)
  hidden = none if queries.hidden is None else queries.hidden
  own = none if queries.own is None else jnp.where(queries.own, queries.index, _NO_KEY)
  place = none
  if position is not None:
    more = ((0, 0), (0, none.shape[1] - position.shape[1]))
    place = jnp.pad(position, more, mode="edge")
  columns = jnp.concatenate(
    [queries.stamp, *(x[:, None] for x in (hidden, own, place))], axis=1
  ).swapaxes(1, 2)
  B, _, width = columns.shape
  columns = jnp.repeat(columns.reshape(B, shape.tiles, shape.tile, width), group, axis=2)
  more = ((0, 0), (0, 0), (0, shape.rows - columns.shape[2]), (0, 0))
  return jnp.pad(columns, more, mode="edge").reshape(B, -1, width).astype(jnp.int32)


def labels_of(keys: Keys) -> Int[Array, "B C M"]:
  """Returns the labels of keys, in rows: lo and hi of each dimension, index."""
  return jnp.concatenate([keys.lo, keys.hi, keys.index[:, None]], axis=1).astype(jnp.int32)


def seen(
  dims: int, point: Callable[[int], jax.Array], label: Callable[[int], jax.Array]
) -> jax.Array:
  """Returns, in a kernel, which rows see which keys, from `points_of` and `labels_of`.

  One of the two stands in columns and the other in rows, and so does the mask.
  """
  index = label(2 * dims)
  inside = point(dims) != index
  for n in range(dims):
    inside &= (label(n) <= point(n)) & (point(n) < label(dims + n))
  return inside | (point(dims + 1) == index)
