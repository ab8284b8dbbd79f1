"""The program of a block of GPU threads: one warpgroup that copies, one or two that compute.

They share a ring of `stages` blocks of keys and values in shared memory. The copying warpgroup
waits until all have consumed a stage, the computing ones until it has arrived; each of these has 64
rows (entries x heads of a group) and keeps their softmax in registers.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Int

from kernels_pallas.frontier_attention.gpu import compat
from kernels_pallas.frontier_attention.score import Scoring

_LOG2E = math.log2(math.e)
_LEAST = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite, so that nothing seen subtracts no inf
_TILE = plgpu.Layout.WGMMA
_ROWS, _COLUMNS = _TILE.reduce(1), _TILE.reduce(0)


class KernelShape(NamedTuple):
  """Static sizes of one call."""

  heads: int  # number of key heads
  rows: int  # rows per warpgroup
  groups: int  # number of warpgroups that compute
  tiles: int  # number of tiles of groups x rows
  block: int  # keys per block
  fresh: int  # blocks of fresh entries per row
  cached: int  # blocks of the cache per row; 0: no cache
  capacity: int  # slots per row
  page: int  # slots per copy: a block, or a smaller page
  parts: int  # number of parts that the blocks of a row are divided into
  kept: int  # rows per warpgroup that are written: all, or fewer if there are few entries
  stages: int
  dims: int  # number of dimensions of the intervals
  simulated: bool


class Refs:
  """The references of one call by name; None for those that the call does not have."""

  def __init__(self, names: Sequence[str], refs: Sequence[Any]):
    self._refs = dict(zip(names, refs, strict=True))

  def __getattr__(self, name: str) -> Any:
    return self._refs.get(name)


def program(*refs: Any, names: Sequence[str], scoring: Scoring, shape: KernelShape) -> None:
  r = Refs(names, refs)
  part, job = lax.axis_index("part"), lax.axis_index("job")
  unit, tile = lax.div(job, jnp.int32(shape.tiles)), lax.rem(job, jnp.int32(shape.tiles))
  batch, head = lax.div(unit, jnp.int32(shape.heads)), lax.rem(unit, jnp.int32(shape.heads))
  cached = _blocks_of_cache(r, shape, batch, tile)
  fresh = shape.fresh if r.fresh_count is None else r.fresh_count[batch, tile]
  first, last = (lax.div((part + n) * (cached + fresh), jnp.int32(shape.parts)) for n in range(2))
  here = Here(batch, head, tile, part, cached, first, last)
  group = lax.axis_index("group")

  @pl.when(group == shape.groups)
  def _():
    if shape.groups > 1:
      plgpu.set_max_registers(40, action="decrease")
    _copy_all(r, shape, here)

  @pl.when(group < shape.groups)
  def _():
    if shape.groups > 1:
      plgpu.set_max_registers(232, action="increase")
    _compute_all(r, scoring, shape, here, group)


class Here(NamedTuple):
  """Scalars: the rows and the blocks of keys that this program computes."""

  batch: Int[Array, ""]
  head: Int[Array, ""]
  tile: Int[Array, ""]
  part: Int[Array, ""]
  cached: Int[Array, ""]  # blocks of the cache that the tile sees; fresh ones follow
  first: Int[Array, ""]
  last: Int[Array, ""]


def _blocks_of_cache(r: Refs, shape: KernelShape, batch, tile):
  if not shape.cached:
    return jnp.int32(0)
  if r.cache_count is not None:
    return r.cache_count[batch, tile]
  return lax.div(_length(r, shape, batch) + (shape.block - 1), jnp.int32(shape.block))


def _length(r: Refs, shape: KernelShape, batch):
  return jnp.minimum(r.lengths[batch], shape.capacity)


def _slots(r: Refs, shape: KernelShape, here: Here, step):
  """Returns the first slot and the first copied slot: the last block of a row begins earlier."""
  block = step if r.cache_list is None else r.cache_list[here.batch, here.tile, step]
  first = block * shape.block
  if r.table is not None:
    return first, first
  return first, jnp.minimum(first, shape.capacity - shape.block)


def _copy_all(r: Refs, shape: KernelShape, here: Here):
  pieces = shape.block // shape.page

  def places_of(step):
    """Returns the place of each piece in the cache."""
    first, start = _slots(r, shape, here, step)
    if r.table is None:
      return [(here.batch, here.head, pl.ds(start, shape.block))]
    size = r.cache_k.shape[2]
    inside = lax.rem(first, jnp.int32(size)) if size > shape.page else 0
    pages = (_page(r, here, first + i * shape.page) for i in range(pieces))
    return [(page, here.head, pl.ds(inside, shape.page)) for page in pages]

  def of_cache(step, stage, places):
    for i, place in enumerate(places):
      to = stage, pl.ds(i * shape.page, shape.page)
      keys, values = (
        (r.keys, r.values) if r.narrow_keys is None else (r.narrow_keys, r.narrow_values)
      )
      plgpu.copy_gmem_to_smem(r.cache_k.at[place], keys.at[to], r.key_here.at[stage])
      plgpu.copy_gmem_to_smem(r.cache_v.at[place], values.at[to], r.value_here.at[stage])
      if r.k_scale is not None:
        plgpu.copy_gmem_to_smem(r.k_scale.at[place], r.key_scales.at[to], r.scale_here.at[stage])
        plgpu.copy_gmem_to_smem(r.v_scale.at[place], r.value_scales.at[to], r.scale_here.at[stage])
    if r.place is not None:
      where = here.batch, pl.ds(_slots(r, shape, here, step)[1], shape.block)
      plgpu.copy_gmem_to_smem(r.place.at[where], r.places.at[stage], r.place_here.at[stage])

  def of_fresh(step, stage):
    start = _fresh_start(r, shape, here, step)
    for i in range(pieces):  # as many copies as for the cache: all arrive at the same barriers
      place = here.batch, here.head, pl.ds(start + i * shape.page, shape.page)
      to = stage, pl.ds(i * shape.page, shape.page)
      plgpu.copy_gmem_to_smem(r.k.at[place], r.keys.at[to], r.key_here.at[stage])
      plgpu.copy_gmem_to_smem(r.v.at[place], r.values.at[to], r.value_here.at[stage])
    where = here.batch, pl.ds(0, r.labels.shape[1]), pl.ds(start, shape.block)
    plgpu.copy_gmem_to_smem(r.labels.at[where], r.label.at[stage], r.label_here.at[stage])

  def copy(step, _):
    turn = step - here.first
    stage = lax.rem(turn, jnp.int32(shape.stages))
    # The table is read before the wait, which hides the latency.
    places = places_of(jnp.minimum(step, shape.cached - 1)) if shape.cached else []
    pl.when(turn >= shape.stages)(lambda: plgpu.barrier_wait(r.consumed.at[stage]))
    if shape.cached:
      pl.when(step < here.cached)(lambda: of_cache(step, stage, places))
      pl.when(step >= here.cached)(lambda: of_fresh(step, stage))
    else:
      of_fresh(step, stage)
    return _

  lax.fori_loop(here.first, here.last, copy, None)


def _page(r: Refs, here: Here, slot):
  """Returns the page of a slot; slots past the table and bad entries get some valid page."""
  index = jnp.minimum(lax.div(slot, jnp.int32(r.cache_k.shape[2])), r.table.shape[1] - 1)
  return jnp.clip(r.table[here.batch, index], 0, r.cache_k.shape[0] - 1)


def _fresh_start(r: Refs, shape: KernelShape, here: Here, step):
  block = step - here.cached
  if r.fresh_list is not None:
    block = r.fresh_list[here.batch, here.tile, block]
  return block * shape.block


def _compute_all(r: Refs, scoring: Scoring, shape: KernelShape, here: Here, group):
  rows = pl.ds((here.tile * shape.groups + group) * shape.rows, shape.rows)
  every = pl.ds(0, r.points.shape[1])
  q, points = r.queries.at[group], r.point.at[group]
  plgpu.copy_gmem_to_smem(r.q.at[here.batch, here.head, rows], q, r.query_here.at[group])
  plgpu.copy_gmem_to_smem(r.points.at[here.batch, every, rows], points, r.query_here.at[group])
  plgpu.barrier_wait(r.query_here.at[group])
  square = shape.rows, shape.block
  registers = compat.Registers(shape.simulated)

  def over_rows(x):
    return lax.broadcast_in_dim(x, square, [0])

  def point(n):
    return over_rows(registers.load(points.at[n], _ROWS))

  def over_columns(ref):
    return lax.broadcast_in_dim(registers.load(ref, _COLUMNS), square, [1])

  def extend(carry, keys, values, seen, ready, k_scale=None, v_scale=None):
    acc, top, total = carry
    s = _product(q, keys, shape)
    if k_scale is not None:
      s = s * over_columns(k_scale)
    # From here on scores are exponents of 2, as a GPU computes powers of 2.
    if scoring.soft_cap is None:
      s = s * (scoring.scale * _LOG2E)
    else:
      s = scoring.soft_cap * _LOG2E * _tanh(s, scoring.scale / scoring.soft_cap)
    s = jnp.where(seen, s, _LEAST * 1.4)
    now = jnp.maximum(top, jnp.max(s, axis=1))
    keep = jnp.exp2(top - now)
    p = jnp.exp2(s - over_rows(now))
    total = total * keep + jnp.sum(p, axis=1)
    if v_scale is not None:
      p = jnp.where(seen, p * over_columns(v_scale), 0.0)
    p = p.astype(q.dtype)
    acc = acc * lax.broadcast_in_dim(keep, acc.shape, [0])
    ready()
    return _weighted(acc, p, values, shape), now, total

  def release(stage, loaded: bool):
    if loaded:
      plgpu.commit_smem()  # reads into registers end before TMA overwrites the block
    plgpu.barrier_arrive(r.consumed.at[stage])

  def stage_of(step):
    return lax.rem(step - here.first, jnp.int32(shape.stages))

  def cached_step(step, carry):
    stage = stage_of(step)
    first, start = _slots(r, shape, here, step)
    length = _length(r, shape, here.batch)
    column = registers.iota(square, 1, _TILE)
    seen = (column >= first - start) & (column < length - start)
    if r.place is not None:
      assert scoring.window is not None, "places are read for a window"
      plgpu.barrier_wait(r.place_here.at[stage])
      distance = point(r.points.shape[1] - 1) - over_columns(r.places.at[stage])
      seen &= (distance < scoring.window) & (distance > -scoring.window)
    scales = {}
    if r.k_scale is not None:
      plgpu.barrier_wait(r.scale_here.at[stage])
      scales = dict(k_scale=r.key_scales.at[stage], v_scale=r.value_scales.at[stage])
    plgpu.barrier_wait(r.key_here.at[stage])
    keys, values = r.keys.at[stage], r.values.at[stage]
    if r.narrow_keys is not None:
      _widen(r.narrow_keys.at[stage], keys, shape)

    def ready():
      plgpu.barrier_wait(r.value_here.at[stage])
      if r.narrow_values is not None:
        _widen(r.narrow_values.at[stage], values, shape)
      _forget_stale(r, shape, values, length - start, group)

    carry = extend(carry, keys, values, seen, ready, **scales)
    release(stage, loaded=shape.simulated or r.place is not None or bool(scales))
    return carry

  def fresh_step(step, carry):
    stage = stage_of(step)
    plgpu.barrier_wait(r.label_here.at[stage])
    plgpu.barrier_wait(r.key_here.at[stage])
    label, dims = r.label.at[stage], shape.dims
    seen = None
    for n in range(dims):
      at = point(n)
      inside = (over_columns(label.at[n]) <= at) & (at < over_columns(label.at[dims + n]))
      seen = inside if seen is None else seen & inside
    if r.label.shape[1] > 2 * dims:
      index = over_columns(label.at[2 * dims])
      seen = (seen & (point(dims) != index)) | (point(dims + 1) == index)

    def ready():
      plgpu.barrier_wait(r.value_here.at[stage])

    carry = extend(carry, r.keys.at[stage], r.values.at[stage], seen, ready)
    release(stage, loaded=True)
    return carry

  width = q.shape[-1]
  carry = (
    registers.full((shape.rows, width), 0, _TILE),
    registers.full((shape.rows,), _LEAST, _ROWS),
    registers.full((shape.rows,), 0, _ROWS),
  )
  turn = jnp.minimum(jnp.maximum(here.cached, here.first), here.last)
  if shape.cached:
    carry = lax.fori_loop(here.first, turn, cached_step, carry)
  acc, top, total = lax.fori_loop(turn, here.last, fresh_step, carry)
  some = total > 0
  total = jnp.where(some, total, 1.0)
  lse = jnp.where(some, (top + jnp.log2(total)) * (1 / _LOG2E), -jnp.inf)
  r.outputs.at[group][...] = (acc / lax.broadcast_in_dim(total, acc.shape, [0])).astype(r.out.dtype)
  r.sums.at[group][...] = lse
  plgpu.commit_smem()
  kept = pl.ds(0, shape.kept)
  to = here.part, here.batch, here.head, pl.ds(rows.start, shape.kept)
  plgpu.copy_smem_to_gmem(r.outputs.at[group, kept], r.out.at[to])
  plgpu.copy_smem_to_gmem(r.sums.at[group, kept], r.lse.at[to])
  plgpu.wait_smem_to_gmem(0)


def _tanh(x, scale: float):
  """Returns tanh(x * scale), by exp2: the fast tanh of a GPU is exact to 5e-4 only."""
  return 1.0 - 2.0 / (1.0 + jnp.exp2(x * (2 * _LOG2E * scale)))


def _product(q, keys, shape: KernelShape):
  """Returns q @ keys^T."""
  if shape.simulated:
    return _dot(q[...], keys[...].T)

  def product(acc):
    plgpu.wgmma(acc, q, keys.transpose((1, 0)))
    return acc[...]

  return pl.run_scoped(product, plgpu.ACC((shape.rows, shape.block), jnp.float32))


def _dot(a, b):
  """Returns a @ b for the interpreter, which supports no transposed operands or accumulators.

  It is not jnp.dot, which a thread pool computes whose threads may all wait at barriers.
  """
  return jnp.sum(a[:, :, None].astype(jnp.float32) * b[None].astype(jnp.float32), axis=1)


def _weighted(acc, p, values, shape: KernelShape):
  """Returns acc + p @ values."""
  if shape.simulated:
    return acc + _dot(p, values[...])
  return pl.run_state(lambda ref: plgpu.wgmma(ref, p, values))(plgpu.ACC.init(acc))


def _widen(narrow, wide, shape: KernelShape):
  """Converts 8 bits to a type that the tensor cores multiply; only one warpgroup computes then."""
  x = compat.Registers(shape.simulated).load(narrow, _TILE, optimized=False)
  if jnp.issubdtype(x.dtype, jnp.floating):
    x = x.astype(jnp.float16)  # the only conversion that the hardware has
  wide[...] = x.astype(wide.dtype)
  plgpu.commit_smem()


def _forget_stale(r: Refs, shape: KernelShape, values, count, group):
  """Sets values past the first `count`, which may be NaN, to 0: 0 * NaN is NaN."""

  @pl.when(count < shape.block)
  def _():
    @pl.when(group == 0)
    def _():
      registers = compat.Registers(shape.simulated)
      size, width = values.shape
      # In pieces: a whole block and the accumulator would not fit into the registers.
      piece = next(n for n in (64, 32, 16, width) if width % n == 0)
      row = registers.iota((size, piece), 0, _TILE)
      for start in range(0, width, piece):
        part = values.at[pl.ds(0, size), pl.ds(start, piece)]
        old = registers.load(part, _TILE)
        part[...] = jnp.where(row < count, old, jnp.zeros_like(old))
      plgpu.commit_smem()

    if shape.groups > 1:
      plgpu.barrier_arrive(r.cleaned)
      plgpu.barrier_wait(r.cleaned)
