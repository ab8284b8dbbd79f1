"""Frontier attention on a TPU: one kernel over a flat list of the blocks that are not empty.

A step is one block of keys against one tile of rows, all key heads at once: a page of the cache in
one copy, or a block of fresh entries. The list is made on the device and fetched ahead as scalars;
the grid is as long as it. Rows are entries x heads of a group, padded together.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from kernels_pallas.frontier_attention import blocks, tpu_work, xla
from kernels_pallas.frontier_attention.blocks import Keys, Queries
from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.law import Law
from kernels_pallas.frontier_attention.tpu_work import Steps

_LANES = 128
_SCORES = 1 << 19  # rows x keys x heads that go together: more would not fit beside large pages
_LEAST = -0.7 * float(jnp.finfo(jnp.float32).max)  # below every score, and finite: see `_update`


class Shape(NamedTuple):
  """Static sizes of one call."""

  tile: int  # entries of a tile of rows
  rows: int  # of a tile
  tiles: int
  block: int  # fresh entries of a block
  fresh: int  # blocks of fresh entries in a row
  page: int  # slots of a block of the cache
  cached: int  # blocks of the cache in a row; 0: no cache
  dims: int  # of the intervals


class Sizes(NamedTuple):
  """Of a block, at most: fresh entries and cache slots (of pages: one); and rows of a tile."""

  fresh: int = 128
  cache: int = 256
  rows: int = 256


@functools.partial(jax.custom_vjp, nondiff_argnums=(7, 8, 9))
def attend(
  q: Float[Array, "B T H D"],
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  queries: Queries,
  keys: Keys,
  cache: Cache | None,
  position: Int[Array, "B T"] | None,
  law: Law,
  sizes: Sizes,
  interpret: bool,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """See `frontier_attention`. The gradient is that of the blocks in XLA.

  interpret: by the TPU interpreter, on any machine, for tests.
  """
  arrays = q, k, v, queries, keys, cache, position
  return run(*arrays, law, sizes, pltpu.InterpretParams() if interpret else False)


def _forward(*arguments):
  *arrays, law, sizes, interpret = arguments
  return attend(*arguments), tuple(arrays)


def _backward(law, sizes, interpret, arrays, cotangents):
  return jax.vjp(lambda *arrays: xla.attend(*arrays, law), *arrays)[1](cotangents)


attend.defvjp(_forward, _backward)


def run(q, k, v, queries, keys, cache, position, law: Law, sizes: Sizes, interpret):
  """`attend` without its gradient; `interpret` as pallas_call has it."""
  B, T, H, D = q.shape
  G = k.shape[1]
  shape = _shape(q, k, queries, cache, sizes)
  # Keys that nobody sees may be NaN, and 0 * NaN is NaN.
  used = jnp.any(blocks.mask_of(queries, keys), axis=1)[:, None, :, None]
  k, v = (jnp.where(used, x, 0).astype(x.dtype) for x in (k, v))
  order = None
  if max(shape.tiles, shape.fresh) > 1:
    order, key_order = blocks.order_of(queries, keys)
    queries, keys = blocks.taken(queries, order), blocks.taken(keys, key_order)
    q = jnp.take_along_axis(q, order[:, :, None, None], 1)
    k, v = (jnp.take_along_axis(x, key_order[:, None, :, None], 2) for x in (k, v))
    if position is not None:
      position = jnp.take_along_axis(position, order, 1)
  queries, keys = blocks.padded(queries, keys, shape.tile, shape.block)
  none = jnp.zeros((B, shape.tiles, 0), bool)
  steps = tpu_work.steps_of(
    none
    if cache is None
    else tpu_work.some_of_cache(cache, shape.page, queries, shape.tile, position, law.window),
    blocks.any_visible(queries, keys, shape.tile, shape.block),
    cache,
  )
  more = shape.fresh * shape.block - T
  k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0))) for x in (k, v))
  out, lse = _call(
    steps, _rows(q, G, shape), _points(queries, position, H // G, shape), k, v, _labels(keys),
    cache, law, shape, interpret,
  )  # fmt: skip
  out, lse = (_entries(x, B, T, H, shape) for x in (out, lse[..., :1]))
  lse = lse[..., 0]
  if order is not None:
    back = jnp.argsort(order, axis=1)
    out = jnp.take_along_axis(out, back[:, :, None, None], 1)
    lse = jnp.take_along_axis(lse, back[:, :, None], 1)
  return out, lse


def _shape(q, k, queries, cache, sizes: Sizes) -> Shape:
  block, page, rows = sizes
  _, T, H, _ = q.shape
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
  return Shape(
    tile=tile,
    rows=-(-tile * group // sublanes) * sublanes,
    tiles=-(-T // tile),
    block=block,
    fresh=-(-T // block),
    page=page,
    cached=cached,
    dims=queries.stamp.shape[1],
  )


def _rows(q, heads, shape: Shape):
  """[B, G, tiles x rows, D]: entries of a tile x heads of the group, then padding."""
  B, T, H, D = q.shape
  q = jnp.pad(q, ((0, 0), (0, shape.tiles * shape.tile - T), (0, 0), (0, 0)))
  q = q.reshape(B, shape.tiles, shape.tile, heads, H // heads, D).transpose(0, 3, 1, 2, 4, 5)
  q = q.reshape(B, heads, shape.tiles, -1, D)
  q = jnp.pad(q, ((0, 0),) * 3 + ((0, shape.rows - q.shape[3]), (0, 0)))
  return q.reshape(B, heads, -1, D)


def _entries(x, B, T, H, shape: Shape):
  heads, width = x.shape[1], x.shape[3]
  x = x.reshape(B, heads, shape.tiles, shape.rows, width)[:, :, :, : shape.tile * (H // heads)]
  x = x.reshape(B, heads, shape.tiles, shape.tile, H // heads, width).transpose(0, 2, 3, 1, 4, 5)
  return x.reshape(B, -1, H, width)[:, :T]


def _points(queries: Queries, position, group, shape: Shape) -> Int[Array, "B N C"]:
  """What rows know of themselves, in columns: stamps, index, hidden key, own index, position."""
  none = jnp.full_like(queries.index, -3)
  hidden = none if queries.hidden is None else queries.hidden
  own = none if queries.own is None else jnp.where(queries.own, queries.index, -3)
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


def _labels(keys: Keys) -> Int[Array, "B C T"]:
  """What keys know of themselves, in rows: lo and hi of each dimension, index."""
  return jnp.concatenate([keys.lo, keys.hi, keys.index[:, None]], axis=1).astype(jnp.int32)


def _call(steps: Steps, q, points, k, v, labels, cache, law, shape: Shape, interpret):
  B, G, _, D = q.shape
  tiles, fresh = shape.tiles, shape.fresh

  def row(w, rows, *_):
    return lax.div(rows[w], tiles), lax.rem(rows[w], tiles)

  def of_row(w, *scalars):
    batch, tile = row(w, *scalars)
    return batch, 0, tile, 0

  def of_points(w, *scalars):
    batch, tile = row(w, *scalars)
    return batch, tile, 0

  def of_cache(w, rows, block, major, minor, *_):
    return major[w], 0, minor[w], 0

  def of_scales(w, rows, block, major, minor, *_):
    return major[w], 0, minor[w]

  def of_place(w, rows, block, *_):
    return lax.div(rows[w], tiles), jnp.minimum(block[w], shape.cached - 1), 0, 0

  def of_fresh(w, rows, block, major, minor, fresh_block, *_):
    return lax.div(fresh_block[w], fresh), 0, lax.rem(fresh_block[w], fresh), 0

  def of_labels(w, rows, block, major, minor, fresh_block, *_):
    return lax.div(fresh_block[w], fresh), 0, lax.rem(fresh_block[w], fresh)

  names = ["q", "points", "k", "v", "labels"]
  arrays = [q, points, k, v, labels]
  specs = [
    pl.BlockSpec((1, G, shape.rows, D), of_row),
    pl.BlockSpec((1, shape.rows, points.shape[2]), of_points),
    pl.BlockSpec((1, G, shape.block, D), of_fresh),
    pl.BlockSpec((1, G, shape.block, D), of_fresh),
    pl.BlockSpec((1, labels.shape[1], shape.block), of_labels),
  ]
  if cache is not None:
    names += ["cache_k", "cache_v"]
    arrays += [cache.k, cache.v]
    specs += [pl.BlockSpec((1, G, shape.page, D), of_cache)] * 2
    if cache.scales is not None:
      names += ["k_scale", "v_scale"]
      arrays += cache.scales
      specs += [pl.BlockSpec((1, G, shape.page), of_scales)] * 2
    if law.window is not None:
      names.append("place")
      more = ((0, 0), (0, shape.cached * shape.page - cache.capacity))
      place = jnp.pad(cache.position, more).reshape(B, shape.cached, 1, shape.page)
      arrays.append(place.astype(jnp.int32))
      specs.append(pl.BlockSpec((1, 1, 1, shape.page), of_place))
  scratch = [(G, shape.rows, _LANES)] * 2 + [(G, shape.rows, D)]
  seen = shape.cached * shape.page + fresh * shape.block
  flops = 4 * q.size * seen
  return pl.pallas_call(
    functools.partial(_kernel, names=names, law=law, shape=shape),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=6,
      grid=(steps.count,),
      in_specs=specs,
      out_specs=[
        pl.BlockSpec((1, G, shape.rows, D), of_row),
        pl.BlockSpec((1, G, shape.rows, _LANES), of_row),
      ],
      scratch_shapes=[pltpu.VMEM(size, jnp.float32) for size in scratch],
    ),
    out_shape=[
      jax.ShapeDtypeStruct(q.shape, q.dtype),
      jax.ShapeDtypeStruct((*q.shape[:3], _LANES), jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
    cost_estimate=pl.CostEstimate(
      flops=flops,
      transcendentals=flops // (4 * D),
      bytes_accessed=2 * B * G * seen * D * (k if cache is None else cache.k).dtype.itemsize,
    ),
    interpret=interpret,
    name="frontier_attention",
  )(*steps[:-1], *arrays)


def _kernel(rows, block, major, minor, fresh, lengths, *refs, names, law: Law, shape: Shape):
  del major, minor, fresh
  ins = dict(zip(names, refs[: len(names)], strict=True))
  out, lse, top, total, acc = refs[len(names) :]
  w = pl.program_id(0)
  here = rows[w]
  heads = out.shape[1]

  @pl.when((w == 0) | (rows[jnp.maximum(w - 1, 0)] != here))
  def _():
    top[...] = jnp.full_like(top, _LEAST)
    total[...] = jnp.zeros_like(total)
    acc[...] = jnp.zeros_like(acc)

  def column(n):
    return ins["points"][0, :, n : n + 1]

  def extend(seen, keys, values, k_scale=None, v_scale=None):
    """Heads phase by phase: one's matrix products run beside another's exponentials."""
    together = max(_SCORES // seen.size, 1)
    for first in range(0, heads, together):
      extend_some(range(heads)[first : first + together], seen, keys, values, k_scale, v_scale)

  def extend_some(some, seen, keys, values, k_scale, v_scale):
    dtype = out.dtype
    # In float32 the matrix unit would round to bfloat16 unless it is told not to.
    precise = lax.Precision.HIGHEST if dtype == jnp.float32 else None
    product = functools.partial(
      lax.dot_general, precision=precise, preferred_element_type=jnp.float32
    )
    scores, weights = [], []
    for head in some:
      s = product(ins["q"][0, head], keys(head).astype(dtype), (((1,), (1,)), ((), ())))
      s = s * law.scale
      if k_scale is not None:
        s = s * k_scale(head)
      if law.soft_cap is not None:
        s = law.soft_cap * jnp.tanh(s / law.soft_cap)
      scores.append(jnp.where(seen, s, -jnp.inf))
    for head, s in zip(some, scores, strict=True):
      # `_LEAST` is finite, so that a row that has seen nothing subtracts no infinity.
      before = top[head]
      now = jnp.maximum(before, jnp.max(s, axis=1, keepdims=True))
      keep = jnp.exp(before - now)
      p = jnp.exp(s - now[:, :1])
      top[head] = now
      if dtype == jnp.float32:
        more = jnp.sum(p, axis=1, keepdims=True)
      else:
        # The matrix unit is idle here, and sums what is multiplied below: rounded weights.
        ones = jnp.ones((s.shape[1], _LANES), dtype)
        more = product(p.astype(dtype), ones, (((1,), (0,)), ((), ())))
      total[head] = keep * total[head] + more
      if v_scale is not None:
        p = p * v_scale(head)
      weights.append((keep[:, :1], p.astype(dtype)))
    for head, (keep, p) in zip(some, weights, strict=True):
      out_head = product(p, values(head).astype(dtype), (((1,), (0,)), ((), ())))
      acc[head] = acc[head] * keep + out_head

  if shape.cached:

    @pl.when(block[w] < shape.cached)
    def _():
      first = block[w] * shape.page
      length = lengths[lax.div(here, shape.tiles)]
      seen = first + lax.broadcasted_iota(jnp.int32, (shape.rows, shape.page), 1) < length
      filled = first + lax.broadcasted_iota(jnp.int32, (shape.page, 1), 0) < length
      if law.window is not None:
        distance = column(shape.dims + 2) - ins["place"][0, 0]
        seen &= (distance < law.window) & (distance > -law.window)
      slot = first + lax.broadcasted_iota(jnp.int32, (1, shape.page), 1) < length

      def filled_values(head):
        values = ins["cache_v"][0, head]
        return jnp.where(filled, values, jnp.zeros_like(values))

      def scale(name):
        return lambda head: jnp.where(slot, ins[name][0, head : head + 1], 0.0)

      scales = {name: scale(name) for name in ("k_scale", "v_scale") if name in ins}
      extend(seen, lambda head: ins["cache_k"][0, head], filled_values, **scales)

  @pl.when(block[w] >= shape.cached)
  def _():
    dims = shape.dims
    seen = jnp.full((shape.rows, shape.block), True)
    for n in range(dims):
      lo, hi = ins["labels"][0, n : n + 1], ins["labels"][0, dims + n : dims + n + 1]
      seen &= (lo <= column(n)) & (column(n) < hi)
    index = ins["labels"][0, 2 * dims : 2 * dims + 1]
    seen = (seen & (column(dims) != index)) | (column(dims + 1) == index)
    extend(seen, lambda head: ins["k"][0, head], lambda head: ins["v"][0, head])

  @pl.when(rows[w + 1] != here)
  def _():
    for head in range(heads):
      some = total[head] > 0
      whole = jnp.where(some, total[head], 1.0)
      out[0, head] = (acc[head] / whole[:, :1]).astype(out.dtype)
      lse[0, head] = jnp.where(some, top[head] + jnp.log(whole), -jnp.inf)
