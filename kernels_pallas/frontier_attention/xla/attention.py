"""Frontier attention in blocks, on any platform: empty blocks are skipped, no array is T x S.

Fresh entries against each other are one block if they are few, else the visible blocks
(`xla_blocks`). The cache is read in blocks up to the length of the longest row; only the last ones
need a mask.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from kernels_pallas.frontier_attention import (
  blocks,
  cache_blocks,
  reference,
  softmax,
)
from kernels_pallas.frontier_attention import (
  dispatch as choice,
)
from kernels_pallas.frontier_attention.blocks import Keys, Queries
from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.score import Scoring, masked
from kernels_pallas.frontier_attention.softmax import Partial, Seen
from kernels_pallas.frontier_attention.xla import blocks as xla_blocks

# On a CPU an iteration costs as much as reading about 100 KiB: blocks are no smaller, and a small
# cache that is nearly full is read at once, with scores for all its slots.
_BLOCK_BYTES, _LEAST_BLOCK, _LARGE_BLOCK = 1 << 18, 128, 512
SMALL_CACHE = 2048
# On a GPU an iteration is a dozen launches: blocks are larger, and rows are processed together.
_GPU_BLOCK, _GPU_SLOTS = 256, 4096
# Numbers of rows per key head: entries x group.
_AT_ONCE_FEW, _AT_ONCE_MANY, _FEW_ROWS, _MANY_ROWS = 0.65, 0.5, 16, 64


# Fresh entries are processed at once if their scores are few, which is then faster even if half of
# the pairs are hidden: if the float32 scores of all rows are few bytes, or if the scores of one row
# are no more than the outputs of its one block would be.
_AT_ONCE_BYTES, _AT_ONCE_ENTRIES = 1 << 23, 512


class XlaSizes(NamedTuple):
  """Maximum entries and slots per block; None: chosen from the shapes."""

  fresh: int | None = None
  cache: int | None = None


def attend(
  q: Float[Array, "B T H D"],
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  queries: Queries,
  keys: Keys,
  cache: Cache | None,
  position: Int[Array, "B T"] | None,
  scoring: Scoring,
  sizes: XlaSizes = XlaSizes(),
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Computes `frontier_attention`. Rows of a matrix are entries x heads of a group."""
  if cache is not None:
    return _over_both(q, k, v, queries, keys, cache, position, scoring, sizes)
  fresh = _over_fresh(_rows(q, k), k, v, queries, keys, scoring, sizes)
  return _entries(softmax.finished(_partial(fresh)), q)


@functools.partial(jax.custom_vjp, nondiff_argnums=(7, 8))
def _over_both(q, k, v, queries, keys, cache, position, scoring, sizes):
  rows = _rows(q, k)
  fresh = _over_fresh(rows, k, v, queries, keys, scoring, sizes)
  reading = _Reading(rows, cache, position, scoring)
  size = _block(cache, *rows.shape[1:3], sizes.cache)
  if size < cache.capacity:
    choose = sizes.cache is None and cache.capacity <= SMALL_CACHE
    partial = _over_cache(_partial(fresh), reading, size, choose)
  elif isinstance(fresh, Seen):
    partial = softmax.started(fresh, reading.at(0, size))
  else:
    partial = softmax.extended(fresh, reading.at(0, size))
  return _entries(softmax.finished(partial), q)


def _forward(q, k, v, queries, keys, cache, position, scoring, sizes):
  inputs = q, k, v, queries, keys, cache, position
  return _over_both(*inputs, scoring, sizes), inputs


def _backward(scoring, sizes, inputs, cotangents):
  """Returns the gradient of the reference, T x S: the number of blocks of a cache is not static.

  Training has no cache; this is for tests and for small models.
  """
  q, k, v, queries, keys, cache, position = inputs

  def dense(q, k, v, cache):
    cache = cache_blocks.own_heads(cache, k.shape[1])
    return reference.attend(q, k, v, queries, keys, cache, position, scoring)

  _, pull = jax.vjp(dense, q, k, v, cache)
  d_q, d_k, d_v, d_cache = pull(cotangents)
  return d_q, d_k, d_v, None, None, d_cache, None


_over_both.defvjp(_forward, _backward)


def _rows(q, k) -> Float[Array, "B G N D"]:
  B, T, H, D = q.shape
  G = k.shape[1]
  return q.reshape(B, T, G, H // G, D).swapaxes(1, 2).reshape(B, G, -1, D)


def _entries(result, q):
  B, T, H, _ = q.shape
  out, lse = (
    x.reshape(B, x.shape[1], T, -1, *x.shape[3:]).swapaxes(1, 2).reshape(B, T, H, *x.shape[3:])
    for x in result
  )
  return out.astype(q.dtype), lse


def _partial(fresh: Partial | Seen) -> Partial:
  return softmax.started(fresh) if isinstance(fresh, Seen) else fresh


def _over_fresh(q, k, v, queries, keys, scoring: Scoring, sizes: XlaSizes) -> Partial | Seen:
  batch, heads, rows, width = q.shape
  entries = k.shape[2]
  if sizes.fresh is None:
    few = 4 * batch * heads * rows * entries < _AT_ONCE_BYTES and entries < _AT_ONCE_ENTRIES
    # A row of few entries is one block, most of it padding, with one iteration per row.
    few |= 2 * entries <= blocks.BLOCK and entries**2 <= blocks.BLOCK * width
  else:
    few = entries <= sizes.fresh
  if not few:
    result = xla_blocks.attend(q, k, v, queries, keys, scoring, *_blocks_of(batch, sizes))
    return softmax.continued(*result)
  seen = blocks.mask_of(queries, keys)
  # 0 * NaN is NaN: a zero weight does not protect from NaN in an unused entry.
  v = jnp.where(jnp.any(seen, axis=1)[:, None, :, None], v, 0).astype(v.dtype)
  return Seen(masked(scoring.scores(q, k), seen[:, None]), v)


def _blocks_of(batch: int, sizes: XlaSizes) -> tuple[int, int]:
  """Returns (entries per block, rows of the batch that are processed together)."""
  gpu = choice.platform_here() == "gpu"
  block = (_GPU_BLOCK if gpu else blocks.BLOCK) if sizes.fresh is None else sizes.fresh
  # Rows on several devices stay in place only if all of them are processed together.
  return block, batch if gpu or choice.partitioned() else 1


def gradients(
  q: Float[Array, "B T H D"],
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  result: tuple[Float[Array, "B T H D"], Float[Array, "B T H"]],
  cotangents: tuple[Float[Array, "B T H D"], Float[Array, "B T H"]],
  queries: Queries,
  keys: Keys,
  scoring: Scoring,
  sizes: XlaSizes = XlaSizes(),
) -> tuple[Float[Array, "B T H D"], Float[Array, "B G T D"], Float[Array, "B G T D"]]:
  """Returns gradients of q, k and v, without a cache, from the result of `attend` or a kernel."""
  result, cotangents = (
    (_rows(out, k), _rows(lse[..., None], k)[..., 0]) for out, lse in (result, cotangents)
  )
  block = _blocks_of(q.shape[0], sizes)
  d_q, d_k, d_v = xla_blocks.gradients(
    _rows(q, k), k, v, result, cotangents, queries, keys, scoring, *block
  )
  return _entries((d_q, d_q[..., 0]), q)[0], d_k, d_v


def _block(cache: Cache, heads: int, rows: int, limit: int | None) -> int:
  if limit is None and choice.platform_here() == "gpu":
    limit = _GPU_SLOTS
  if limit is None:
    width = cache.k.shape[3]
    slots = _BLOCK_BYTES // (2 * heads * width * cache.k.dtype.itemsize)
    if rows < _FEW_ROWS and cache.capacity <= 2 * slots:
      return cache.capacity
    limit = max(_LEAST_BLOCK if cache.capacity <= SMALL_CACHE else _LARGE_BLOCK, slots)
  return cache_blocks.block_size(cache, limit)


class _Reading(NamedTuple):
  """A reader of the blocks of a cache, with scores of the queries."""

  q: Float[Array, "B G N D"]
  cache: Cache
  position: Int[Array, "B T"] | None
  scoring: Scoring

  def at(self, index, size: int, *, edge: bool = True) -> Seen:
    part = cache_blocks.read(
      self.cache, index, size, edge=edge, heads=self.q.shape[1], position=self.position,
      window=self.scoring.window,
    )  # fmt: skip
    k_scale, v_scale = (None, None) if part.scales is None else part.scales
    s = self.scoring.scores(self.q, part.k, k_scale)
    return Seen(s if part.seen is None else masked(s, part.seen[:, None]), part.v, v_scale)


def _over_cache(partial: Partial, reading: _Reading, size: int, choose: bool) -> Partial:
  """Returns `partial` extended over the committed slots, or those within the window.

  choose: a cache that is nearly full is read at once.
  """
  cache, window = reading.cache, reading.scoring.window
  whole = jnp.int32(0)
  if window is None:
    some = None
    whole, count = jnp.min(cache.lengths) // size, -(-jnp.max(cache.lengths) // size)
  else:
    some, count = cache_blocks.in_window(cache, size, reading.position, window)

  def step(index, partial, *, edge):
    at = index if some is None else some[index]
    return softmax.extended(partial, reading.at(at, size, edge=edge))

  def by_blocks(partial):
    if window is None:
      partial = lax.fori_loop(0, whole, functools.partial(step, edge=False), partial)
    return lax.fori_loop(whole, count, functools.partial(step, edge=True), partial)

  def at_once(partial):
    return softmax.extended(partial, reading.at(0, cache.capacity))

  if not choose:
    return by_blocks(partial)
  share = _AT_ONCE_FEW if reading.q.shape[2] < _MANY_ROWS else _AT_ONCE_MANY
  return lax.cond(count * size > share * cache.capacity, at_once, by_blocks, partial)
