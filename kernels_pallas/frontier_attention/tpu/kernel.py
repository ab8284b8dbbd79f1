"""Frontier attention on a TPU: one kernel over a flat list of the blocks that are not empty.

A step is one block of keys against one tile of rows, all key heads at once: a page of the cache in
one copy, or a block of fresh entries. The list is made on the device and prefetched as scalars;
the grid has its length. Rows are entries x heads of a group, padded together. Where a device has
two cores, each takes half of the key heads of every step.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from kernels_pallas.frontier_attention import blocks, cache_blocks, sorting
from kernels_pallas.frontier_attention.blocks import Keys, Queries
from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.score import Scoring
from kernels_pallas.frontier_attention.tpu import (
  gradient as tpu_grad,
)
from kernels_pallas.frontier_attention.tpu import (
  tiles as tpu_tiles,
)
from kernels_pallas.frontier_attention.tpu import (
  work as tpu_work,
)
from kernels_pallas.frontier_attention.tpu.tiles import TileShape, TileSizes
from kernels_pallas.frontier_attention.tpu.work import Steps
from kernels_pallas.frontier_attention.xla import attention as xla

__all__ = ["TileSizes", "attend", "run"]

_LANES = 128
_LEAST = -0.7 * float(jnp.finfo(jnp.float32).max)  # below every score, and finite: see `_update`


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
  sizes: TileSizes,
  interpret: bool,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Computes `frontier_attention`. The gradient is that of `tpu_grad`, over a cache that of XLA.

  interpret: use the TPU interpreter, for tests on any machine.
  """
  arrays = q, k, v, queries, keys, cache, position
  return run(*arrays, scoring, sizes, _interpreter(interpret))


def _interpreter(interpret):
  return pltpu.InterpretParams() if interpret else False


def _forward(*arguments):
  *arrays, scoring, sizes, interpret = arguments
  result = attend(*arguments)
  return result, (arrays, result)


def _backward(scoring, sizes, interpret, kept, cotangents):
  arrays, result = kept
  q, k, v, queries, keys, cache, _ = arrays
  if cache is not None:
    return jax.vjp(lambda *arrays: xla.attend(*arrays, scoring), *arrays)[1](cotangents)
  gradients = tpu_grad.run(
    q, k, v, result, cotangents, queries, keys, scoring, sizes, _interpreter(interpret)
  )
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
  sizes: TileSizes,
  interpret: Any,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Computes `attend` without its gradient; `interpret` is that of pallas_call."""
  _, T, H, _ = q.shape
  G = k.shape[1]
  shape = tpu_tiles.shape_of(q, k, queries, cache, sizes)
  k, v = sorting.where_seen(queries, keys, k, v)
  order, queries, keys = tpu_tiles.ordered(queries, keys, shape)
  q = sorting.in_order(q, order.queries)
  k, v = (tpu_tiles.whole_blocks(sorting.in_order(x, order.keys, 2), shape) for x in (k, v))
  if position is not None:
    position = sorting.in_order(position, order.queries)
  none = jnp.zeros((q.shape[0], shape.tiles, 0), bool)
  steps = tpu_work.steps_of(
    none
    if cache is None
    else cache_blocks.some_of_cache(
      cache, shape.page, queries, shape.tile, position, scoring.window
    ),
    blocks.any_visible(queries, keys, shape.tile, shape.block),
    cache,
  )
  points = tpu_tiles.points_of(queries, position, H // G, shape)
  out, lse = _call(
    steps, tpu_tiles.rows_of(q, G, shape), points, k, v, tpu_tiles.labels_of(keys), cache, scoring,
    shape, interpret,
  )  # fmt: skip
  back = sorting.back(order.queries)
  out, lse = (
    sorting.in_order(tpu_tiles.entries_of(x, T, H, shape), back) for x in (out, lse[..., :1])
  )
  return out, lse[..., 0]


def _call(steps: Steps, q, points, k, v, labels, cache, scoring, shape: TileShape, interpret):
  B, G, _, D = q.shape
  tiles, fresh = shape.tiles, shape.fresh
  heads = G // shape.cores  # heads per core: cores share the list and are independent
  grid = (steps.count,) if shape.cores == 1 else (shape.cores, steps.count)

  kinds = ("parallel", "arbitrary")[-len(grid) :]

  def spec(size, index):
    """Returns a BlockSpec by `index` of core, step and scalars; a single core has no grid axis."""
    return pl.BlockSpec(size, index if shape.cores > 1 else functools.partial(index, 0))

  def of_row(core, w, rows, *_):
    return lax.div(rows[w], tiles), core, lax.rem(rows[w], tiles), 0

  def of_points(core, w, rows, *_):
    return lax.div(rows[w], tiles), lax.rem(rows[w], tiles), 0

  def of_cache(core, w, rows, block, major, minor, *_):
    return major[w], core, minor[w], 0

  def of_turned(core, w, rows, block, major, minor, *_):
    return major[w], core, 0, minor[w]

  def of_scales(core, w, rows, block, major, minor, *_):
    return major[w], 0, minor[w]

  def of_place(core, w, rows, block, *_):
    return lax.div(rows[w], tiles), jnp.minimum(block[w], shape.cached - 1), 0, 0

  def of_fresh(core, w, rows, block, major, minor, fresh_block, *_):
    return lax.div(fresh_block[w], fresh), core, lax.rem(fresh_block[w], fresh), 0

  def of_labels(core, w, rows, block, major, minor, fresh_block, *_):
    return lax.div(fresh_block[w], fresh), 0, lax.rem(fresh_block[w], fresh)

  names = ["q", "points", "k", "v", "labels"]
  arrays = [q, points, k, v, labels]
  specs = [
    spec((1, heads, shape.rows, D), of_row),
    spec((1, shape.rows, points.shape[2]), of_points),
    spec((1, heads, shape.block, D), of_fresh),
    spec((1, heads, shape.block, D), of_fresh),
    spec((1, labels.shape[1], shape.block), of_labels),
  ]
  if cache is not None:
    names += ["cache_k", "cache_v"]
    if shape.turned:
      # Heads do not fill their lanes: XLA keeps such a cache with its slots on the lanes, so this
      # transposition moves nothing, and without it the whole cache would be copied.
      arrays += [x.swapaxes(2, 3) for x in (cache.k, cache.v)]
      specs += [spec((1, heads, D, shape.page), of_turned)] * 2
    else:
      arrays += [cache.k, cache.v]
      specs += [spec((1, heads, shape.page, D), of_cache)] * 2
    if cache.scales is not None:
      names += ["k_scale", "v_scale"]
      arrays += cache.scales
      # All heads: Mosaic cuts blocks of rows on the sublanes at multiples of 8.
      specs += [spec((1, G, shape.page), of_scales)] * 2
    if scoring.window is not None:
      names.append("place")
      more = ((0, 0), (0, shape.cached * shape.page - cache.capacity))
      place = jnp.pad(cache.position, more).reshape(B, shape.cached, 1, shape.page)
      arrays.append(place.astype(jnp.int32))
      specs.append(spec((1, 1, 1, shape.page), of_place))
  scratch = [(heads, shape.rows, _LANES)] * 2 + [(heads, shape.rows, D)]
  seen = shape.cached * shape.page + fresh * shape.block
  flops = 4 * q.size * seen
  return pl.pallas_call(
    functools.partial(_kernel, names=names, scoring=scoring, shape=shape),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=6,
      grid=grid,
      in_specs=specs,
      out_specs=[
        spec((1, heads, shape.rows, D), of_row),
        spec((1, heads, shape.rows, _LANES), of_row),
      ],
      scratch_shapes=[pltpu.VMEM(size, jnp.float32) for size in scratch],
    ),
    out_shape=[
      jax.ShapeDtypeStruct(q.shape, q.dtype),
      jax.ShapeDtypeStruct((*q.shape[:3], _LANES), jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=kinds, vmem_limit_bytes=tpu_tiles.vmem_limit()
    ),
    cost_estimate=pl.CostEstimate(
      flops=flops,
      transcendentals=flops // (4 * D),
      bytes_accessed=2 * B * G * seen * D * (k if cache is None else cache.k).dtype.itemsize,
    ),
    interpret=interpret,
    name="frontier_attention",
  )(*steps[:-1], *arrays)


def _kernel(
  rows, block, major, minor, fresh, lengths, *refs, names, scoring: Scoring, shape: TileShape
):
  del major, minor, fresh
  ins = dict(zip(names, refs[: len(names)], strict=True))
  out, lse, top, total, acc = refs[len(names) :]
  heads = out.shape[1]
  w, first_head = pl.program_id(0), 0
  if shape.cores > 1:
    w, first_head = pl.program_id(1), pl.program_id(0) * heads
  here = rows[w]

  @pl.when((w == 0) | (rows[jnp.maximum(w - 1, 0)] != here))
  def _():
    top[...] = jnp.full_like(top, _LEAST)
    total[...] = jnp.zeros_like(total)
    acc[...] = jnp.zeros_like(acc)

  def column(n):
    return ins["points"][0, :, n : n + 1]

  def extend(seen, keys, values, k_scale=None, v_scale=None, slots=0):
    """Processes heads phase by phase: products of one run beside exponentials of another.

    slots: the axis of slots in keys and values.
    """
    together = max(tpu_tiles.SCORES // seen.size, 1)
    for first in range(0, heads, together):
      some = range(heads)[first : first + together]
      extend_some(some, seen, keys, values, k_scale, v_scale, slots)

  def extend_some(some, seen, keys, values, k_scale, v_scale, slots):
    dtype = out.dtype
    # By default the matrix unit rounds float32 to bfloat16.
    precise = lax.Precision.HIGHEST if dtype == jnp.float32 else None
    product = functools.partial(
      lax.dot_general, precision=precise, preferred_element_type=jnp.float32
    )
    scores, weights = [], []
    for head in some:
      s = product(ins["q"][0, head], keys(head).astype(dtype), (((1,), (1 - slots,)), ((), ())))
      s = s * scoring.scale
      if k_scale is not None:
        s = s * k_scale(head)
      if scoring.soft_cap is not None:
        s = scoring.soft_cap * jnp.tanh(s / scoring.soft_cap)
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
        # The matrix unit is idle here; it sums the rounded weights that are multiplied below.
        ones = jnp.ones((s.shape[1], _LANES), dtype)
        more = product(p.astype(dtype), ones, (((1,), (0,)), ((), ())))
      total[head] = keep * total[head] + more
      if v_scale is not None:
        p = p * v_scale(head)
      weights.append((keep[:, :1], p.astype(dtype)))
    for head, (keep, p) in zip(some, weights, strict=True):
      out_head = product(p, values(head).astype(dtype), (((1,), (slots,)), ((), ())))
      acc[head] = acc[head] * keep + out_head

  if shape.cached:

    @pl.when(block[w] < shape.cached)
    def _():
      first = block[w] * shape.page
      length = lengths[lax.div(here, shape.tiles)]
      seen = first + lax.broadcasted_iota(jnp.int32, (shape.rows, shape.page), 1) < length
      if scoring.window is not None:
        distance = column(shape.dims + 2) - ins["place"][0, 0]
        seen &= (distance < scoring.window) & (distance > -scoring.window)
      slot = first + lax.broadcasted_iota(jnp.int32, (1, shape.page), 1) < length
      filled = slot
      if not shape.turned:
        filled = first + lax.broadcasted_iota(jnp.int32, (shape.page, 1), 0) < length

      def filled_values(head):
        values = ins["cache_v"][0, head]
        return jnp.where(filled, values, jnp.zeros_like(values))

      def scale(name):
        return lambda head: jnp.where(slot, ins[name][0, pl.ds(first_head + head, 1)], 0.0)

      scales = {name: scale(name) for name in ("k_scale", "v_scale") if name in ins}
      slots = 1 if shape.turned else 0
      extend(seen, lambda head: ins["cache_k"][0, head], filled_values, **scales, slots=slots)

  @pl.when(block[w] >= shape.cached)
  def _():
    seen = tpu_tiles.seen(shape.dims, column, lambda n: ins["labels"][0, n : n + 1])
    extend(seen, lambda head: ins["k"][0, head], lambda head: ins["v"][0, head])

  @pl.when(rows[w + 1] != here)
  def _():
    for head in range(heads):
      some = total[head] > 0
      whole = jnp.where(some, total[head], 1.0)
      out[0, head] = (acc[head] / whole[:, :1]).astype(out.dtype)
      lse[0, head] = jnp.where(some, top[head] + jnp.log(whole), -jnp.inf)
