"""The TPU kernels' lists of work: which rows meet which block of keys, step by step of a grid."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from kernels_pallas.frontier_attention.cache_blocks import Cache


class Steps(NamedTuple):
  """1-D integers for the scalar memory, one entry per step; the first `count` are valid.

  A step of one kind repeats the last block of the other kind: a block that is not moved costs
  nothing. `rows` has one entry more, so that a step can look at the next one.
  """

  rows: Int[Array, " W1"]  # row of the batch x tiles + tile
  block: Int[Array, " W"]  # blocks of the cache are numbered first, then those of fresh entries
  major: Int[Array, " W"]  # row or page of the cache's block
  minor: Int[Array, " W"]  # number of the cache's block within a row; 0 in pages
  fresh: Int[Array, " W"]  # row of the batch x blocks of fresh entries + block
  lengths: Int[Array, " B"]
  count: Int[Array, ""]


def steps_of(
  some_cache: Bool[Array, "B I J"], some_fresh: Bool[Array, "B I F"], cache: Cache | None
) -> Steps:
  """Lists the visible blocks by row and tile, cache before fresh; at least one per tile."""
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
  """1-D integers for the scalar memory: pairs of blocks of fresh entries, sorted by the outer one.

  `outer` is -1 past the `count` of steps, and has one entry more, as `Steps.rows` has.
  """

  outer: Int[Array, " W1"]  # row of the batch x I + i
  inner: Int[Array, " W"]  # row of the batch x J + j
  count: Int[Array, ""]


def pairs_of(some: Bool[Array, "B I J"]) -> Pairs:
  """Lists the visible blocks by row, i and j; each i has at least one."""
  _, outers, inners = some.shape
  row, i, j, work, count = _listed(some, spare=0)
  outer = jnp.where(work, row * outers + i, -1)
  return Pairs(jnp.append(outer, -1), row * inners + j, count)


def _listed(some, spare):
  """Returns the places of True, then padding; `spare` where there is none, as outputs need one."""
  some = some.at[..., spare].max(~jnp.any(some, axis=2))
  places = (x.astype(jnp.int32) for x in jnp.nonzero(some, size=some.size, fill_value=0))
  count = jnp.sum(some, dtype=jnp.int32)
  return *places, jnp.arange(some.size) < count, count


def _held(x, own):
  """Returns x in steps of its own kind, else that of the last such step; 0 before the first."""
  last = lax.cummax(jnp.where(own, jnp.arange(x.shape[0]), -1))
  return jnp.where(last >= 0, x[jnp.maximum(last, 0)], 0)
