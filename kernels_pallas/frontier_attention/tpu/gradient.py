"""The gradient of frontier attention on a TPU, without a cache: two kernels over flat lists.

FlashAttention's backward pass (2205.14135, alg. 4) over the blocks that are not empty: dq by the
list of the forward kernel, in which a tile of rows stands still; dk and dv by its transpose, in
which a block of keys does. Each computes the weights again from the saved log-sum-exp, so
memory is O(T). In the second, scores stand with their keys in rows: no product transposes weights.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from kernels_pallas.frontier_attention import blocks, softmax, sorting
from kernels_pallas.frontier_attention.blocks import Keys, Queries
from kernels_pallas.frontier_attention.score import Scoring
from kernels_pallas.frontier_attention.tpu import tiles as tpu_tiles
from kernels_pallas.frontier_attention.tpu import work as tpu_work
from kernels_pallas.frontier_attention.tpu.tiles import TileShape, TileSizes
from kernels_pallas.frontier_attention.tpu.work import Pairs

# Bytes to use of the 16 MiB that a kernel gets; `_heads` does not count everything.
_BYTES = 10 << 20
_ALONG = (((1,), (1,)), ((), ()))  # contracts the last axis of both
_ACROSS = (((1,), (0,)), ((), ()))


class Sides(NamedTuple):
  """The arrays that both kernels read, sorted and padded."""

  q: Float[Array, "B G N D"]
  d_out: Float[Array, "B G N D"]
  k: Float[Array, "B G M D"]
  v: Float[Array, "B G M D"]


def run(
  q: Float[Array, "B T H D"],
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  result: tuple[Float[Array, "B T H D"], Float[Array, "B T H"]],
  cotangents: tuple[Float[Array, "B T H D"], Float[Array, "B T H"]],
  queries: Queries,
  keys: Keys,
  scoring: Scoring,
  sizes: TileSizes,
  interpret: Any,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B G T D"], Float[Array, "B G T D"]]:
  """Returns (dq, dk, dv) from the result of the forward kernel and its cotangents.

  Keys that nobody sees get 0, whatever they hold. `interpret` as pallas_call has it.
  """
  _, T, H, _ = q.shape
  G = k.shape[1]
  (out, lse), (d_out, d_lse) = result, cotangents
  shape = tpu_tiles.shape_of(q, k, queries, None, sizes)
  k, v = sorting.where_seen(queries, keys, k, v)
  order, queries, keys = tpu_tiles.ordered(queries, keys, shape)
  # d score = p (d_out . v - rest): what all keys of a query share.
  rest = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1) - d_lse
  rest = jnp.where(jnp.isneginf(lse), 0.0, rest)
  sums = jnp.stack([softmax.finite_top(lse), rest], axis=-1)
  q, d_out, sums = (
    tpu_tiles.rows_of(sorting.in_order(x, order.queries), G, shape) for x in (q, d_out, sums)
  )
  k_blocks, v_blocks = (
    tpu_tiles.whole_blocks(sorting.in_order(x, order.keys, 2), shape).astype(q.dtype)
    for x in (k, v)
  )
  sides = Sides(q, d_out.astype(q.dtype), k_blocks, v_blocks)
  points = tpu_tiles.points_of(queries, None, H // G, shape)
  labels = tpu_tiles.labels_of(keys)
  some = blocks.any_visible(queries, keys, shape.tile, shape.block)
  how: dict[str, Any] = dict(
    scoring=scoring, shape=shape, max_heads=sizes.heads, interpret=interpret
  )
  d_q = _by_rows(tpu_work.pairs_of(some), sides, points, labels, sums, **how)
  d_k, d_v = _by_keys(
    tpu_work.pairs_of(some.swapaxes(1, 2)), sides, points, labels.swapaxes(1, 2), sums, **how
  )
  d_q = sorting.in_order(tpu_tiles.entries_of(d_q, T, H, shape), sorting.back(order.queries))
  back = sorting.back(order.keys)
  d_k, d_v = (sorting.in_order(x[:, :, :T], back, 2).astype(k.dtype) for x in (d_k, d_v))
  return d_q, d_k, d_v


def _heads(sides: Sides, max_heads: int, shape: TileShape, *, moved: int, kept: int) -> int:
  """Returns how many key heads per step fit; each has `moved` rows of arrays and `kept` of sums."""
  G, D = sides.q.shape[1], sides.q.shape[3]
  # Moved arrays have two buffers; four blocks such as scores are in use.
  size = (2 * moved * sides.q.dtype.itemsize + 4 * kept) * D + 4 * 4 * shape.rows * shape.block
  fit = [n for n in range(1, min(G, max_heads) + 1) if G % n == 0 and n * size <= _BYTES]
  return max(fit, default=1)


def _by_rows(
  pairs: Pairs,
  sides: Sides,
  points,
  labels,
  sums,
  *,
  scoring,
  shape: TileShape,
  max_heads,
  interpret,
):
  """Computes dq: a tile of rows stays, blocks of keys pass."""
  B, G, N, D = sides.q.shape
  heads = _heads(sides, max_heads, shape, moved=3 * shape.rows + 2 * shape.block, kept=shape.rows)
  # lse and rest of each head of a step alternate, in columns.
  sums = sums.reshape(B, G // heads, heads, N, 2).swapaxes(2, 3).reshape(B, -1, N, 2 * heads)

  def of_row(g, w, outer, inner):
    return lax.div(outer[w], shape.tiles), g, lax.rem(outer[w], shape.tiles), 0

  def of_points(g, w, outer, inner):
    return lax.div(outer[w], shape.tiles), lax.rem(outer[w], shape.tiles), 0

  def of_key(g, w, outer, inner):
    return lax.div(inner[w], shape.fresh), g, lax.rem(inner[w], shape.fresh), 0

  def of_labels(g, w, outer, inner):
    return lax.div(inner[w], shape.fresh), 0, lax.rem(inner[w], shape.fresh)

  rows = pl.BlockSpec((1, heads, shape.rows, D), of_row)
  keys = pl.BlockSpec((1, heads, shape.block, D), of_key)
  specs = [
    rows, rows, keys, keys,
    pl.BlockSpec((1, shape.rows, points.shape[2]), of_points),
    pl.BlockSpec((1, labels.shape[1], shape.block), of_labels),
    pl.BlockSpec((1, 1, shape.rows, 2 * heads), of_row),
  ]  # fmt: skip
  return _call(
    functools.partial(_dq_kernel, scoring=scoring, dims=shape.dims),
    pairs, (*sides, points, labels, sums), specs, [(sides.q, rows)],
    [(heads, shape.rows, D)], products=3, interpret=interpret, name="frontier_attention_dq",
  )[0]  # fmt: skip


def _by_keys(
  pairs: Pairs,
  sides: Sides,
  points,
  labels,
  sums,
  *,
  scoring,
  shape: TileShape,
  max_heads,
  interpret,
):
  """Computes (dk, dv): a block of keys stays, tiles of rows pass."""
  B, G, _, D = sides.q.shape
  heads = _heads(
    sides, max_heads, shape, moved=2 * shape.rows + 4 * shape.block, kept=2 * shape.block
  )
  # Rows on the lanes, a tile at a time, so that any number of them is whole.
  sums = sums.reshape(B, G // heads, heads, shape.tiles, shape.rows, 2).transpose(0, 1, 3, 2, 5, 4)
  sums = sums.reshape(B, G // heads, shape.tiles, 2 * heads, shape.rows)
  points = points.reshape(B, shape.tiles, shape.rows, -1).swapaxes(2, 3)

  def of_row(g, w, outer, inner):
    return lax.div(inner[w], shape.tiles), g, lax.rem(inner[w], shape.tiles), 0

  def of_sums(g, w, outer, inner):
    return *of_row(g, w, outer, inner), 0

  def of_points(g, w, outer, inner):
    return lax.div(inner[w], shape.tiles), lax.rem(inner[w], shape.tiles), 0, 0

  def of_key(g, w, outer, inner):
    return lax.div(outer[w], shape.fresh), g, lax.rem(outer[w], shape.fresh), 0

  def of_labels(g, w, outer, inner):
    return lax.div(outer[w], shape.fresh), lax.rem(outer[w], shape.fresh), 0

  rows = pl.BlockSpec((1, heads, shape.rows, D), of_row)
  keys = pl.BlockSpec((1, heads, shape.block, D), of_key)
  specs = [
    rows, rows, keys, keys,
    pl.BlockSpec((1, 1, *points.shape[2:]), of_points),
    pl.BlockSpec((1, shape.block, labels.shape[2]), of_labels),
    pl.BlockSpec((1, 1, 1, *sums.shape[3:]), of_sums),
  ]  # fmt: skip
  return _call(
    functools.partial(_dkv_kernel, scoring=scoring, dims=shape.dims),
    pairs, (*sides, points, labels, sums), specs, [(sides.k, keys), (sides.v, keys)],
    [(heads, shape.block, D)] * 2, products=4, interpret=interpret, name="frontier_attention_dkv",
  )  # fmt: skip


def _call(kernel, pairs: Pairs, arrays, specs, outs, scratch, *, products, interpret, name):
  """Returns compiler parameters: groups of heads are independent, and steps follow one another."""
  q, k = arrays[0], arrays[2]
  groups = q.shape[1] // scratch[0][0]
  weights = q.size // q.shape[3] * k.shape[2]
  return pl.pallas_call(
    kernel,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(groups, pairs.count),
      in_specs=specs,
      out_specs=[spec for _, spec in outs],
      scratch_shapes=[pltpu.VMEM(size, jnp.float32) for size in scratch],
    ),
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x, _ in outs],
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
    cost_estimate=pl.CostEstimate(
      flops=2 * products * weights * q.shape[3],
      transcendentals=weights,
      bytes_accessed=sum(x.nbytes for x in arrays),
    ),
    interpret=interpret,
    name=name,
  )(pairs.outer, pairs.inner, *arrays)


def _dq_kernel(
  outer, inner, q, d_out, k, v, points, labels, sums, d_q, acc, *, scoring: Scoring, dims: int
):
  del inner
  _starting(outer, acc)
  seen = tpu_tiles.seen(dims, lambda n: points[0, :, n : n + 1], lambda n: labels[0, n : n + 1])
  slopes = _slopes(scoring, seen, (q, k), (d_out, v), lambda n: sums[0, 0, :, n : n + 1])
  for head, (_, d_s) in enumerate(slopes):
    acc[head] += _product(d_s.astype(q.dtype), k[0, head], _ACROSS)

  @_ending(outer)
  def _():
    d_q[0] = (acc[...] * scoring.scale).astype(d_q.dtype)


def _dkv_kernel(
  outer,
  inner,
  q,
  d_out,
  k,
  v,
  points,
  labels,
  sums,
  d_k,
  d_v,
  acc_k,
  acc_v,
  *,
  scoring: Scoring,
  dims: int,
):
  del inner
  _starting(outer, acc_k, acc_v)
  seen = tpu_tiles.seen(dims, lambda n: points[0, 0, n : n + 1], lambda n: labels[0, :, n : n + 1])
  slopes = _slopes(scoring, seen, (k, q), (v, d_out), lambda n: sums[0, 0, 0, n : n + 1])
  for head, (p, d_s) in enumerate(slopes):
    acc_v[head] += _product(p.astype(q.dtype), d_out[0, head], _ACROSS)
    acc_k[head] += _product(d_s.astype(q.dtype), q[0, head], _ACROSS)

  @_ending(outer)
  def _():
    d_k[0] = (acc_k[...] * scoring.scale).astype(d_k.dtype)
    d_v[0] = acc_v[...].astype(d_v.dtype)


def _starting(outer, *accumulators):
  w = pl.program_id(1)

  @pl.when((w == 0) | (outer[jnp.maximum(w - 1, 0)] != outer[w]))
  def _():
    for acc in accumulators:
      acc[...] = jnp.zeros_like(acc)


def _ending(outer):
  w = pl.program_id(1)
  return pl.when(outer[w + 1] != outer[w])


def _slopes(scoring: Scoring, seen, scored, weighted, column):
  """Returns, per head, the weights p and the gradient of the scores before their scale.

  scored: q and k; weighted: d_out and v, both pairs in the order of the mask's axes. All heads go
  phase by phase: matrix products of one run beside exponentials of another.
  """
  heads = scored[0].shape[1]
  scores, d_weights = (
    [_product(one[0, head], other[0, head], _ALONG) for head in range(heads)]
    for one, other in (scored, weighted)
  )
  result = []
  for head, (s, d_p) in enumerate(zip(scores, d_weights, strict=True)):
    s = s * scoring.scale
    if scoring.soft_cap is not None:
      s = scoring.soft_cap * jnp.tanh(s / scoring.soft_cap)
    p = jnp.exp(jnp.where(seen, s, -jnp.inf) - column(2 * head))
    d_s = p * (d_p - column(2 * head + 1))
    if scoring.soft_cap is not None:
      d_s = d_s * (1 - jnp.square(s / scoring.soft_cap))
    result.append((p, d_s))
  return result


def _product(a, b, contract):
  # By default the matrix unit rounds float32 to bfloat16.
  precise = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return lax.dot_general(a, b, contract, precision=precise, preferred_element_type=jnp.float32)
