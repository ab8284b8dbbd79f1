"""The TPU kernels' lists of work: which rows meet which block of keys, step by step of a grid."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from kernels_pallas.frontier_attention.cache_blocks import Cache


class Steps(NamedTuple):
  """1-D integers for the scalar memory, an entry a step, of which the first `count` are work.

  A step of one kind repeats the block that the other kind had last: what is not moved costs
  nothing. `rows` has one entry more, so that a step can look at the next one.
  """

  rows: Int[Array, " W1"]  # row of the batch x tiles + tile
  block: Int[Array, " W"]  # of the cache, then, from `blocks of the cache` on, of fresh entries
  major: Int[Array, " W"]  # where the cache's block is: row or page,
  minor: Int[Array, " W"]  # and place in the row
  fresh: Int[Array, " W"]  # row of the batch x blocks of fresh entries + block
  lengths: Int[Array, " B"]
  count: Int[Array, ""]


def steps_of(
  some_cache: Bool[Array, "B I J"], some_fresh: Bool[Array, "B I F"], cache: Cache | None
) -> Steps:
  """Blocks with something to see, by row, tile, cache before fresh; each tile has at least one."""
  batch, tiles, cached = some_cache.shape
  some = jnp.concatenate([some_cache, some_fresh], axis=2)
  row, tile, block, work, count = _listed(some, spare=cached)
  of_cache = (block < cached) & work
  if cache is None or cache.table is None:
    major, minor = row, block
  else:
    pages = cache.k.shape[0]
    major = jnp.clip(cache.table[row, jnp.minimum(block, cached - 1)], 0, pages - 1)
    minor = jnp.zeros_like(major)
  fresh = row * some_fresh.shape[2] + block - cached
  rows = jnp.where(work, row * tiles + tile, -1)
  lengths = jnp.zeros((batch,), jnp.int32) if cache is None else cache.lengths.astype(jnp.int32)
  return Steps(
    jnp.append(rows, -1),
    block,
    _held(major, of_cache),
    _held(minor, of_cache),
    _held(fresh, (block >= cached) & work),
    lengths,
    count,
  )


class Pairs(NamedTuple):
  """1-D integers for the scalar memory: two sides of fresh entries, the outer one in runs.

  `outer` is -1 past the `count` of steps, and has one entry more, as `Steps.rows` has.
  """

  outer: Int[Array, " W1"]  # row of the batch x I + i
  inner: Int[Array, " W"]  # row of the batch x J + j
  count: Int[Array, ""]


def pairs_of(some: Bool[Array, "B I J"]) -> Pairs:
  """Blocks with something to see, by row, i, j; each i has at least one."""
  _, outers, inners = some.shape
  row, i, j, work, count = _listed(some, spare=0)
  outer = jnp.where(work, row * outers + i, -1)
  return Pairs(jnp.append(outer, -1), row * inners + j, count)


def _listed(some, spare):
  """Places of what is true, then of nothing; with `spare` where a row has none: its output."""
  some = some.at[..., spare].max(~jnp.any(some, axis=2))
  places = (x.astype(jnp.int32) for x in jnp.nonzero(some, size=some.size, fill_value=0))
  count = jnp.sum(some, dtype=jnp.int32)
  return *places, jnp.arange(some.size) < count, count


def _held(x, own):
  """x where it is its own step's, else the last that was; 0 before the first."""
  last = lax.cummax(jnp.where(own, jnp.arange(x.shape[0]), -1))
  return jnp.where(last >= 0, x[jnp.maximum(last, 0)], 0)
