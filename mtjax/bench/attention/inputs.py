"""Inputs of attention on a device: caches made there, pages, 8 bits, windows and NaN."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtjax.bench.attention.kernels import AttentionShape, arrays


def with_cache(shape: AttentionShape, page: int | None, seed: int = 0) -> dict:
  """Returns `kernels.arrays` with a cache that is made on the device, where it may be large.

  page: slots per page, which must divide the capacity; the pages of a row lie scattered.
  """
  result = arrays(dataclasses.replace(shape, capacity=0, filled=0), seed)
  if not shape.capacity:
    return result
  result["lengths"] = jnp.full((shape.batch,), shape.filled, jnp.int32)
  return result | cache(shape, page, seed)


def cache(shape: AttentionShape, page: int | None, seed: int = 0) -> dict:
  """Returns cache_k and cache_v, and a page_table if there are pages."""
  s, result = shape, {}
  size = (s.batch, s.kv_heads, s.capacity, s.width)
  if page is not None:
    count = pages(s.capacity, page)
    size = (s.batch * count, s.kv_heads, page, s.width)
    place = np.random.default_rng(seed).permutation(size[0]).astype(np.int32)
    result["page_table"] = jnp.asarray(place.reshape(s.batch, count))
  for name, key in zip(("cache_k", "cache_v"), jax.random.split(jax.random.key(seed)), strict=True):
    result[name] = _normal(key, size, s.dtype)
  return result


@functools.partial(jax.jit, static_argnums=(1, 2))
def _normal(key, size, dtype):
  return jax.random.normal(key, size, dtype)


def pages(capacity: int, page: int) -> int:
  """Returns the number of pages per row. Raises ValueError unless they fill it."""
  if capacity % page:
    raise ValueError(f"a cache of {capacity} slots has no whole number of pages of {page}")
  return capacity // page


def poisoned(arguments: dict) -> dict:
  """Returns the inputs with NaN in slots past the length, and a table without pages for them.

  In 8 bits the slots hold 77, and their scales are NaN.
  """
  lengths = np.asarray(arguments["lengths"])
  result = dict(arguments)
  if arguments.get("page_table") is None:
    stale = np.arange(arguments["cache_k"].shape[2]) >= lengths[:, None]
  else:
    table, page = np.array(arguments["page_table"]), arguments["cache_k"].shape[2]
    slot = np.arange(table.shape[1] * page).reshape(1, -1, page) * np.ones((len(table), 1, 1), int)
    stale = np.ones((arguments["cache_k"].shape[0], page), bool)
    stale[table] = slot >= lengths[:, None, None]
    table[np.arange(table.shape[1]) * page >= lengths[:, None]] = 1 << 20
    result["page_table"] = jnp.asarray(table)
  for name in ("cache_k", "cache_v"):
    dirt = 77 if arguments[name].dtype == jnp.int8 else np.nan
    result[name] = jnp.where(stale[:, None, :, None], dirt, arguments[name]).astype(
      arguments[name].dtype
    )
  if arguments.get("kv_scales") is not None:
    scales = arguments["kv_scales"]
    result["kv_scales"] = tuple(jnp.where(stale[:, None], np.nan, x) for x in scales)
  return result


def in_8_bits(arguments: dict) -> dict:
  """Returns the inputs with an int8 cache and a scale per token and head."""
  result, scales = dict(arguments), []
  for name in ("cache_k", "cache_v"):
    x = arguments[name].astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=-1) / 127 + 1e-3
    result[name] = jnp.round(x / scale[..., None]).astype(jnp.int8)
    scales.append(scale)
  return result | dict(kv_scales=tuple(scales))


def in_window(arguments: dict, window: int, seed: int = 0) -> dict:
  """Returns the inputs with a window; the cache holds positions in any order."""
  rng, entries = np.random.default_rng(seed), arguments["q"].shape[1]
  lengths = np.asarray(arguments["lengths"])
  table = arguments.get("page_table")
  slots = arguments["cache_k"].shape[2] * (1 if table is None else table.shape[1])
  place = np.stack([np.r_[rng.permutation(n), rng.integers(0, 99, slots - n)] for n in lengths])
  position = lengths[:, None] + np.arange(entries) // 2
  return arguments | dict(
    window=window,
    position=jnp.asarray(position, jnp.int32),
    cache_position=jnp.asarray(place, jnp.int32),
  )


def with_exceptions(arguments: dict, seed: int = 0) -> dict:
  """Returns the inputs with keys hidden from single queries and entries that see themselves."""
  rng = np.random.default_rng(seed)
  size = arguments["q"].shape[:2]
  hidden = np.where(rng.random(size) < 0.3, rng.integers(0, size[1], size), -1)
  return arguments | dict(
    hidden=jnp.asarray(hidden, jnp.int32), own=jnp.asarray(rng.random(size) < 0.5)
  )
