"""Frontier attention on a Hopper GPU (sm_90): TMA, WGMMA, flash-decoding over the list of blocks.

A block of threads has one key head of one row, a tile of rows (entries x heads of a group) and one
part of the blocks of keys that the tile sees: first those of the cache, then fresh ones. Parts are
merged by their log-sum-exps (split-K); their number depends on shapes, their contents on lengths.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.sharding import get_abstract_mesh
from jaxtyping import Array, Float, Int

from kernels_pallas.frontier_attention import blocks, cache_blocks, softmax, sorting
from kernels_pallas.frontier_attention.blocks import Keys, Queries
from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.gpu import compat
from kernels_pallas.frontier_attention.gpu import kernel as gpu_kernel
from kernels_pallas.frontier_attention.gpu.kernel import KernelShape
from kernels_pallas.frontier_attention.score import Scoring
from kernels_pallas.frontier_attention.sorting import SortedLabels
from kernels_pallas.frontier_attention.xla import attention as xla

_CORES = 132  # streaming multiprocessors of an H100 or H200, if no other GPU is present
_SHARED = 232_448 - 4_096  # bytes per block of threads, without barriers and alignment of buffers


USUAL_BLOCK = 64


class CallSizes(NamedTuple):
  """Keys per block, rows per computing warpgroup, number of these, and parts per row.

  None: chosen from the shape. Only the interpreter accepts other `rows` than 64.
  """

  block: int = USUAL_BLOCK
  rows: int = 64
  groups: int | None = None
  parts: int | None = None

  @classmethod
  def of(cls, fresh: int, cache: int) -> "CallSizes":
    """Returns sizes for `block_sizes`: here blocks of both kinds have 64 or 128 keys."""
    return cls(block=USUAL_BLOCK if min(fresh, cache) < 128 else 128)


@functools.partial(jax.custom_vjp, nondiff_argnums=(7, 8, 9))
def attend(
  q: Float[Array, "B T H D"],
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  queries: Queries,
  keys: Keys,
  cache: Cache | None,
  position: Int[Array, "B T"] | None,
  scoring: Scoring,
  sizes: CallSizes,
  interpret: bool,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Computes `frontier_attention`. The gradient is that of the blocks in XLA, from this result.

  interpret: use the GPU interpreter, for tests on any machine, any dtype and head dimension.
  """
  arrays = q, k, v, queries, keys, cache, position
  return run(*arrays, scoring, sizes, compat.interpret_params() if interpret else None)


def _forward(*arguments):
  *arrays, scoring, sizes, interpret = arguments
  result = attend(*arguments)
  return result, (arrays, result)


def _backward(scoring, sizes, interpret, kept, cotangents):
  arrays, result = kept
  q, k, v, queries, keys, cache, _ = arrays
  if cache is not None:
    return jax.vjp(lambda *arrays: xla.attend(*arrays, scoring), *arrays)[1](cotangents)
  gradients = xla.gradients(q, k, v, result, cotangents, queries, keys, scoring)
  return *gradients, None, None, None, None


attend.defvjp(_forward, _backward)


def run(
  q: Float[Array, "B T H D"],
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  queries: Queries,
  keys: Keys,
  cache: Cache | None,
  position: Int[Array, "B T"] | None,
  scoring: Scoring,
  sizes: CallSizes,
  interpret: Any,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Computes `attend` without its gradient; `interpret`: None or the interpreter's parameters."""
  B, T, H, D = q.shape
  G = k.shape[1]
  if cache is not None and cache.table is not None:
    page = cache.k.shape[2]
    if page % sizes.block and sizes.block % page:
      sizes = sizes._replace(block=USUAL_BLOCK)  # divides, or is divided by, all accepted pages
    if page % sizes.block and sizes.block % page:
      raise ValueError(f"pages of {page} slots are no whole blocks of {sizes.block}, nor parts")
  k, v = sorting.where_seen(queries, keys, k, v)
  order = SortedLabels()
  if T * (H // G) > sizes.rows or T > sizes.block:
    order, queries, keys = sorting.of(queries, keys)
    q = sorting.in_order(q, order.queries)
    k, v = (sorting.in_order(x, order.keys, 2) for x in (k, v))
    if position is not None:
      position = sorting.in_order(position, order.queries)
  if cache is not None:
    cache = _padded_to_a_block(cache, sizes.block)
  shape = _shape(q, k, queries, cache, sizes, interpret is not None)
  tile = shape.groups * shape.rows
  rows = _rows_of(queries, H // G)
  rows, keys = blocks.padded(rows, keys, tile, shape.block)
  lists = {}
  if shape.fresh > 1:
    some = blocks.any_visible(rows, keys, tile, shape.block)
    lists |= _list("fresh", some)
  if position is not None:
    position = jnp.pad(
      jnp.repeat(position, H // G, axis=1), ((0, 0), (0, -T * (H // G) % tile)), mode="edge"
    )
  if cache is not None and scoring.window is not None:
    some = cache_blocks.some_of_cache(cache, shape.block, rows, tile, position, scoring.window)
    lists |= _list("cache", some)
  q = q.reshape(B, T, G, H // G, D).transpose(0, 2, 1, 3, 4).reshape(B, G, -1, D)
  q = jnp.pad(q, ((0, 0), (0, 0), (0, -q.shape[2] % tile), (0, 0)))
  more = ((0, 0), (0, 0), (0, shape.fresh * shape.block - T), (0, 0))
  exceptions = queries.hidden is not None or queries.own is not None
  arrays = lists | dict(
    q=q,
    points=_points(rows, exceptions, position if scoring.window is not None else None),
    k=jnp.pad(k, more),
    v=jnp.pad(v, more),
    labels=_labels(keys, exceptions),
  )
  out, lse = _call(arrays, cache, scoring, shape, interpret)
  if shape.parts > 1:
    out, lse = softmax.merged(out, lse)
    out = out.astype(q.dtype)
  else:
    out, lse = out[0], lse[0]

  def entries(x):
    x = x[:, :, : T * (H // G)].reshape(B, G, T, H // G, *x.shape[3:])
    return jnp.moveaxis(x, 1, 2).reshape(B, T, H, *x.shape[4:])

  back = sorting.back(order.queries)
  return sorting.in_order(entries(out), back), sorting.in_order(entries(lse), back)


def _padded_to_a_block(cache: Cache, block: int) -> Cache:
  """Returns a cache of at least one block: a small one is copied and padded."""
  if cache.table is not None or cache.capacity >= block:
    return cache

  def longer(x, axis):
    more = [(0, 0)] * x.ndim
    more[axis] = (0, block - cache.capacity)
    return jnp.pad(x, more)

  return cache._replace(
    k=longer(cache.k, 2),
    v=longer(cache.v, 2),
    scales=None if cache.scales is None else tuple(longer(x, 2) for x in cache.scales),
    position=None if cache.position is None else longer(cache.position, 1),
  )


def _rows_of(queries: Queries, group: int) -> Queries:
  """Repeats an entry's labels for each of its heads: rows are entries x heads of a group."""

  def repeat(x):
    return None if x is None else jnp.repeat(x, group, axis=-1)

  return Queries(*(repeat(x) for x in queries))


def _list(name: str, some) -> dict:
  """Returns the visible blocks first, in order, and their number, for every tile."""
  order = jnp.argsort(~some, axis=2, stable=True).astype(jnp.int32)
  return {f"{name}_list": order, f"{name}_count": jnp.sum(some, axis=2, dtype=jnp.int32)}


def _points(rows: Queries, exceptions: bool, position) -> Int[Array, "B C N"]:
  """Returns the labels of rows: stamps, then hidden key and own index, then position."""
  parts = [rows.stamp]
  if exceptions:
    none = jnp.full_like(rows.index, -3)
    hidden = none if rows.hidden is None else rows.hidden
    own = none if rows.own is None else jnp.where(rows.own, rows.index, -3)
    parts += [hidden[:, None], own[:, None]]
  if position is not None:
    parts.append(position[:, None])
  return jnp.concatenate(parts, axis=1).astype(jnp.int32)


def _labels(keys: Keys, exceptions: bool) -> Int[Array, "B C T"]:
  parts = [keys.lo, keys.hi]
  if exceptions:
    parts.append(keys.index[:, None])
  return jnp.concatenate(parts, axis=1).astype(jnp.int32)


def _shape(q, k, queries, cache, sizes: CallSizes, simulated: bool) -> KernelShape:
  B, T, H, D = q.shape
  G = k.shape[1]
  block = sizes.block
  narrow = cache is not None and cache.k.dtype.itemsize == 1
  rows = T * (H // G)
  groups = sizes.groups or (2 if rows > sizes.rows and D <= 128 else 1)
  if narrow:
    groups = 1
  tiles = -(-rows // (groups * sizes.rows))
  fresh, cached, capacity, page = -(-T // block), 0, 0, block
  if cache is not None:
    capacity = cache.capacity
    cached = -(-capacity // block)
    if cache.table is not None:
      page = min(cache.k.shape[2], block)
  parts = sizes.parts or _parts(B * G * tiles, cached + fresh, _cores())
  wide = q.dtype.itemsize
  fixed = groups * sizes.rows * (D * (wide + _part_dtype(q, parts).itemsize) + 64)
  # Keys, values and rows of labels, positions and scales, each of which begins at 1,024 bytes.
  stage = 2 * block * D * (wide + narrow) + (2 * queries.stamp.shape[1] + 4) * block * 4 + 1024
  stages = 2 if simulated else min(max((_SHARED - fixed) // stage, 1), 6)
  kept = sizes.rows
  if groups * tiles == 1:
    kept = min(-(-rows // 8) * 8, kept)
  return KernelShape(
    heads=G, rows=sizes.rows, groups=groups, tiles=tiles, block=block, fresh=fresh, cached=cached,
    capacity=capacity, page=page, parts=parts, kept=kept, stages=stages,
    dims=queries.stamp.shape[1], simulated=simulated,
  )  # fmt: skip


def _part_dtype(q, parts: int):
  """Returns the type of partial outputs. With wide heads float32 would leave no space for keys."""
  return jnp.dtype(q.dtype if parts == 1 or q.shape[-1] > 128 else jnp.float32)


def _cores() -> int:
  """Returns the number of cores of the present GPU; `_CORES` if another is compiled for."""
  if jax.default_backend() != "gpu" or get_abstract_mesh().abstract_device is not None:
    return _CORES
  return jax.devices()[0].core_count


def _parts(programs: int, blocks_of_row: int, cores: int = _CORES) -> int:
  """Returns the number of parts of a row's blocks that costs the fewest turns of all cores."""

  def turns(parts):
    # The output of a part is written and read again: as many bytes as a block has, on all cores.
    merging = 2 * programs * parts / cores if parts > 1 else 0
    return -(-programs * parts // cores) * (-(-blocks_of_row // parts) + 2) + merging

  return min(range(1, min(blocks_of_row, cores) + 1), key=turns)


def _call(arrays, cache, scoring: Scoring, shape: KernelShape, interpret):
  q = arrays["q"]
  B, G, N, D = q.shape
  inputs = {}
  if cache is not None:
    inputs |= dict(lengths=cache.lengths.astype(jnp.int32), cache_k=cache.k, cache_v=cache.v)
    if cache.table is not None:
      inputs["table"] = cache.table.astype(jnp.int32)
    if cache.scales is not None:
      inputs["k_scale"], inputs["v_scale"] = (x.astype(jnp.float32) for x in cache.scales)
    if scoring.window is not None:
      more = ((0, 0), (0, max(shape.cached * shape.block - cache.capacity, 0)))
      inputs["place"] = jnp.pad(cache.position, more).astype(jnp.int32)
  inputs |= arrays
  dtype = _part_dtype(q, shape.parts)
  rows = shape.kept if shape.kept < shape.rows else N
  outs = dict(
    out=jax.ShapeDtypeStruct((shape.parts, B, G, rows, D), dtype),
    lse=jax.ShapeDtypeStruct((shape.parts, B, G, rows), jnp.float32),
  )
  scratch = _scratch(inputs, dtype, shape)
  call = plgpu.kernel(
    functools.partial(
      gpu_kernel.program, names=[*inputs, *outs, *scratch], scoring=scoring, shape=shape
    ),
    out_type=tuple(outs.values()),
    scratch_types=tuple(scratch.values()),
    # The last axis may have any size, others at most 65,535.
    grid=(shape.parts, B * G * shape.tiles),
    grid_names=("part", "job"),
    num_threads=shape.groups + 1,
    thread_name="group",
    compiler_params=plgpu.CompilerParams(approx_math=True),
    interpret=interpret,
  )
  return call(*inputs.values())


def _scratch(inputs: dict, out_dtype, shape: KernelShape) -> dict:
  q, (groups, rows, block, stages) = (
    inputs["q"],
    (shape.groups, shape.rows, shape.block, shape.stages),
  )
  D = q.shape[-1]

  def tiled(*size, dtype=q.dtype):
    return plgpu.SMEM(size, dtype, transforms=_transforms(D, dtype, shape.simulated))

  pieces = block // shape.page
  result = dict(
    queries=tiled(groups, rows, D),
    point=plgpu.SMEM((groups, inputs["points"].shape[1], rows), jnp.int32),
    keys=tiled(stages, block, D),
    values=tiled(stages, block, D),
    label=plgpu.SMEM((stages, inputs["labels"].shape[1], block), jnp.int32),
    outputs=tiled(groups, rows, D, dtype=out_dtype),
    sums=plgpu.SMEM((groups, rows), jnp.float32),
    query_here=plgpu.Barrier(num_arrivals=2, num_barriers=groups),
    key_here=plgpu.Barrier(num_arrivals=pieces, num_barriers=stages),
    value_here=plgpu.Barrier(num_arrivals=pieces, num_barriers=stages),
    label_here=plgpu.Barrier(num_barriers=stages),
    consumed=plgpu.Barrier(num_arrivals=groups, num_barriers=stages),
  )
  if groups > 1:
    result["cleaned"] = plgpu.Barrier(num_arrivals=groups)
  if "k_scale" in inputs:
    narrow = inputs["cache_k"].dtype
    result |= dict(
      narrow_keys=tiled(stages, block, D, dtype=narrow),
      narrow_values=tiled(stages, block, D, dtype=narrow),
      key_scales=plgpu.SMEM((stages, block), jnp.float32),
      value_scales=plgpu.SMEM((stages, block), jnp.float32),
      scale_here=plgpu.Barrier(num_arrivals=2 * pieces, num_barriers=stages),
    )
  if "place" in inputs:
    result |= dict(
      places=plgpu.SMEM((stages, block), jnp.int32),
      place_here=plgpu.Barrier(num_barriers=stages),
    )
  return result


def _transforms(width: int, dtype, simulated: bool):
  """Returns the layout in tiles of 8 rows, as wide as the swizzle that divides a row."""
  if simulated:
    return ()
  size = jnp.dtype(dtype).itemsize
  swizzle = next(bytes for bytes in (128, 64, 32) if width * size % bytes == 0)
  return plgpu.TilingTransform((8, swizzle // size)), plgpu.SwizzleTransform(swizzle)
