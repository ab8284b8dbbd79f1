"""Entries against each other by the list of blocks that have something to see; its gradient too.

FlashAttention's forward and backward pass (2205.14135, alg. 1 and 4) over one list of blocks.
Memory is O(T); the time is that of the blocks that are not empty.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels_pallas.frontier_attention import blocks, softmax
from kernels_pallas.frontier_attention.blocks import Keys, Queries
from kernels_pallas.frontier_attention.law import Law, masked
from kernels_pallas.frontier_attention.softmax import Seen


def attend(
  q: Float[Array, "B G N D"],
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  queries: Queries,
  keys: Keys,
  law: Law,
  block: int,
  together: int,
) -> tuple[Float[Array, "B G N D"], Float[Array, "B G N"]]:
  """(out, lse) in float32. Entries are put in the order of their stamps, and back at last.

  Permute, attend, unpermute: a random order of entries has no empty block until they are sorted.
  `together`: rows of the batch that skip the same blocks, those that are empty in all of them.
  """
  B, G, _, D = q.shape
  T = k.shape[2]
  order, key_order = blocks.order_of(queries, keys)
  sides = blocks.taken(queries, order), blocks.taken(keys, key_order)
  sides = blocks.padded(*sides, block, block)
  more = ((0, 0), (0, 0), (0, -T % block))
  k, v = (
    jnp.pad(jnp.take_along_axis(x, key_order[:, None, :, None], 2), (*more, (0, 0))) for x in (k, v)
  )
  rows = jnp.take_along_axis(q.reshape(B, G, T, -1, D), order[:, None, :, None, None], 2)
  rows = jnp.pad(rows, (*more, (0, 0), (0, 0))).reshape(B, G, -1, D)
  out, lse = _in_order(rows, k, v, *sides, law, block, together)
  back = jnp.argsort(order, axis=1)[:, None, :, None]
  heads = q.shape[2] // T
  lse = jnp.take_along_axis(lse.reshape(B, G, -1, heads), back, 2)
  out = jnp.take_along_axis(out.reshape(B, G, -1, heads, D), back[..., None], 2)
  return out.reshape(q.shape), lse.reshape(B, G, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _in_order(q, k, v, queries, keys, law: Law, block: int, together: int):
  return _forward(q, k, v, queries, keys, law, block, together)[0]


def _forward(q, k, v, queries, keys, law, block, together):
  rows = block * (q.shape[2] // k.shape[2])
  tiles = _Tiles(together)
  some = blocks.any_visible(queries, keys, block, block)
  some = jnp.any(some.reshape(-1, together, *some.shape[1:]), axis=1)
  work = blocks.work_list(some)

  def step(index, partial):
    row, i, j = work.row[index], work.query[index], work.key[index]
    seen = blocks.mask_of(tiles.cut(queries, row, i, block), tiles.cut(keys, row, j, block))
    k_tile, v_tile = tiles.cut((k, v), row, j, block)
    v_tile = _where_used(seen, v_tile)
    s = masked(law.scores(tiles.cut(q, row, i, rows), k_tile), seen[:, None])
    mine = softmax.extended(tiles.cut(partial, row, i, rows), Seen(s, v_tile))
    return tiles.put(partial, mine, row, i, rows)

  partial = lax.fori_loop(0, work.count, step, softmax.nothing(q.shape))
  out, lse = softmax.finished(partial)
  return (out, lse), (q, k, v, queries, keys, out, lse, work)


def _backward(law, block, together, kept, cotangents):
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
    raw = law.scores(q_tile, k_tile)
    p = jnp.exp(masked(raw, seen[:, None]) - lse_tile[..., None])
    d_p = _product(d_out_tile.astype(v.dtype), v_tile.mT)
    d_s = p * (d_p - rest_tile[..., None]) * law.scale
    if law.soft_cap is not None:
      d_s *= 1 - jnp.square(raw / law.soft_cap)
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
