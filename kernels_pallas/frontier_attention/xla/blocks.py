"""Entries against each other by the list of blocks that have something to see; its gradient too.

FlashAttention's forward and backward pass (2205.14135, alg. 1 and 4) over one list of blocks.
Memory is O(T); the time is that of the blocks that are not empty.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from kernels_pallas.frontier_attention import blocks, softmax, sorting
from kernels_pallas.frontier_attention.blocks import Keys, Queries, Work
from kernels_pallas.frontier_attention.score import Scoring, masked
from kernels_pallas.frontier_attention.softmax import Seen
from kernels_pallas.frontier_attention.sorting import SortedLabels


def attend(
  q: Float[Array, "B G N D"],
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  queries: Queries,
  keys: Keys,
  scoring: Scoring,
  block: int,
  together: int,
) -> tuple[Float[Array, "B G N D"], Float[Array, "B G N"]]:
  """(out, lse) in float32. Entries are put in the order of their stamps, and back at last.

  Permute, attend, unpermute: a random order of entries has no empty block until they are sorted.
  `together`: rows of the batch that skip the same blocks, those that are empty in all of them.
  """
  order, queries, keys = sorting.of(queries, keys)
  sides = blocks.padded(queries, keys, block, block)
  k, v = (_keys_in(x, order, block) for x in (k, v))
  found = _in_order(_rows_in(q, order, block), k, v, *sides, scoring, block, together)
  return tuple(_rows_out(x, order, q.shape[2]) for x in found)


def gradients(
  q: Float[Array, "B G N D"],
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  found: tuple[Float[Array, "B G N D"], Float[Array, "B G N"]],
  cotangents: tuple[Float[Array, "B G N D"], Float[Array, "B G N"]],
  queries: Queries,
  keys: Keys,
  scoring: Scoring,
  block: int,
  together: int,
) -> tuple[Float[Array, "B G N D"], Float[Array, "B G T D"], Float[Array, "B G T D"]]:
  """Of what `attend`, or a kernel in its place, has found: (out, lse) are not computed again."""
  order, queries, keys = sorting.of(queries, keys)
  sides = blocks.padded(queries, keys, block, block)
  rows = (_rows_in(x.astype(jnp.float32), order, block) for x in (*found, *cotangents))
  out, lse, d_out, d_lse = rows
  kept = (
    _rows_in(q, order, block), *(_keys_in(x, order, block) for x in (k, v)), *sides, out, lse,
    _work(*sides, block, together),
  )  # fmt: skip
  d_q, d_k, d_v, *_ = _backward(scoring, block, together, kept, (d_out, d_lse))
  back = sorting.back(order.keys)
  T = k.shape[2]
  return _rows_out(d_q, order, q.shape[2]), *(
    sorting.in_order(x[:, :, :T], back, 2) for x in (d_k, d_v)
  )


def _rows_in(x: Shaped[Array, "B G N ..."], order: SortedLabels, block: int) -> jax.Array:
  """Rows, entries x heads of a group, in order and padded by 0 to whole blocks of entries."""
  B, G, _, *rest = x.shape
  T = order.queries.shape[1]
  x = sorting.in_order(x.reshape(B, G, T, -1, *rest), order.queries, 2)
  x = jnp.pad(x, [(0, 0), (0, 0), (0, -T % block)] + [(0, 0)] * (x.ndim - 3))
  return x.reshape(B, G, -1, *rest)


def _rows_out(x: Shaped[Array, "B G M ..."], order: SortedLabels, rows: int) -> jax.Array:
  """The inverse of `_rows_in`."""
  B, G, _, *rest = x.shape
  T = order.queries.shape[1]
  x = x.reshape(B, G, -1, rows // T, *rest)[:, :, :T]
  return sorting.in_order(x, sorting.back(order.queries), 2).reshape(B, G, rows, *rest)


def _keys_in(
  x: Float[Array, "B G T D"], order: SortedLabels, block: int
) -> Float[Array, "B G M D"]:
  x = sorting.in_order(x, order.keys, 2)
  return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % block), (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _in_order(q, k, v, queries, keys, scoring: Scoring, block: int, together: int):
  return _forward(q, k, v, queries, keys, scoring, block, together)[0]


def _forward(q, k, v, queries, keys, scoring, block, together):
  rows = block * (q.shape[2] // k.shape[2])
  tiles = _Tiles(together)
  work = _work(queries, keys, block, together)

  def step(index, partial):
    row, i, j = work.row[index], work.query[index], work.key[index]
    seen = blocks.mask_of(tiles.cut(queries, row, i, block), tiles.cut(keys, row, j, block))
    k_tile, v_tile = tiles.cut((k, v), row, j, block)
    v_tile = _where_used(seen, v_tile)
    s = masked(scoring.scores(tiles.cut(q, row, i, rows), k_tile), seen[:, None])
    mine = softmax.extended(tiles.cut(partial, row, i, rows), Seen(s, v_tile))
    return tiles.put(partial, mine, row, i, rows)

  partial = lax.fori_loop(0, work.count, step, softmax.nothing(q.shape))
  out, lse = softmax.finished(partial)
  return (out, lse), (q, k, v, queries, keys, out, lse, work)


def _work(queries, keys, block: int, together: int) -> Work:
  some = blocks.any_visible(queries, keys, block, block)
  return blocks.work_list(jnp.any(some.reshape(-1, together, *some.shape[1:]), axis=1))


def _backward(scoring, block, together, kept, cotangents):
  q, k, v, queries, keys, out, lse, work = kept
  d_out, d_lse = cotangents
  rows = block * (q.shape[2] // k.shape[2])
  # d score = p (d_out . v - rest): what all keys of a query share.
  rest = jnp.sum(d_out * out, axis=-1) - d_lse
  lse = softmax.finite_top(lse)
  tiles = _Tiles(together)

  def step(index, gradients):
    row, i, j = work.row[index], work.query[index], work.key[index]
    seen = blocks.mask_of(tiles.cut(queries, row, i, block), tiles.cut(keys, row, j, block))
    k_tile, v_tile = (_where_used(seen, x) for x in tiles.cut((k, v), row, j, block))
    q_tile, d_out_tile, lse_tile, rest_tile = tiles.cut((q, d_out, lse, rest), row, i, rows)
    raw = scoring.scores(q_tile, k_tile)
    p = jnp.exp(masked(raw, seen[:, None]) - lse_tile[..., None])
    d_p = _product(d_out_tile.astype(v.dtype), v_tile.mT)
    d_s = p * (d_p - rest_tile[..., None]) * scoring.scale
    if scoring.soft_cap is not None:
      d_s *= 1 - jnp.square(raw / scoring.soft_cap)
    more = (
      _product(d_s.astype(k.dtype), k_tile),
      _product(d_s.mT.astype(q.dtype), q_tile),
      _product(p.mT.astype(v.dtype), d_out_tile.astype(v.dtype)),
    )
    places = ((i, rows), (j, block), (j, block))
    return tuple(
      tiles.put(old, tiles.cut(old, row, at, size) + new, row, at, size)
      for old, new, (at, size) in zip(gradients, more, places, strict=True)
    )

  zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
  gradients = lax.fori_loop(0, work.count, step, zeros)
  gradients = (g.astype(x.dtype) for g, x in zip(gradients, (q, k, v), strict=True))
  return *gradients, None, None


_in_order.defvjp(_forward, _backward)


def _where_used(seen, x):
  """Entries that no query of the block sees as zeros: 0 * NaN is NaN."""
  return jnp.where(jnp.any(seen, axis=-2)[:, None, :, None], x, 0).astype(x.dtype)


def _product(a, b):
  return jnp.matmul(a, b, preferred_element_type=jnp.float32)


class _Tiles(NamedTuple):
  """Some entries of some rows: axis 2 of [B, G, N, ...], the last of others."""

  together: int  # rows of the batch

  def cut(self, tree, row, at, size):
    """Entries at * size, ... of rows row * together, ..."""

    def one(x):
      start, sizes = [0] * x.ndim, list(x.shape)
      axis = min(2, x.ndim - 1)
      start[0], sizes[0] = row * self.together, self.together
      start[axis], sizes[axis] = at * size, size
      return lax.dynamic_slice(x, start, sizes)

    return jax.tree.map(one, tree)

  def put(self, tree, new, row, at, size):
    """`tree` with these entries replaced by `new`."""

    def one(x, y):
      start = [0] * x.ndim
      start[0], start[min(2, x.ndim - 1)] = row * self.together, at * size
      return lax.dynamic_update_slice(x, y, start)

    return jax.tree.map(one, tree, new)
