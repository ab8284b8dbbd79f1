"""The shapes of attention that are compiled: arguments without data."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class CompiledShape:
  """A shape with T fresh entries per row, over a cache of `capacity` slots per row (0: none)."""

  entries: int
  capacity: int = 8192
  page: int | None = None  # slots per page; None: the cache is contiguous
  batch: int = 8
  heads: int = 32
  kv_heads: int = 8
  width: int = 128
  dtype: str = "bfloat16"
  cache_dtype: str | None = None  # None: dtype
  window: int | None = None
  gradient: bool = False

  def __post_init__(self):
    if self.page is not None and self.capacity % self.page:
      raise ValueError(f"page {self.page} must divide the capacity of {self.capacity} slots")
    if self.gradient and self.capacity:
      raise ValueError("gradients need capacity 0: training has no cache")

  def __str__(self) -> str:
    """Names the shape: its entries, its cache, and the settings that are not the default."""
    if not self.capacity:
      place = "no cache"
    else:
      place = "contiguous" if self.page is None else f"pages of {self.page}"
    parts = [f"{self.entries:,} {'entry' if self.entries == 1 else 'entries'}", place]
    if self.capacity not in (0, 8192):
      parts.append(f"{self.capacity:,} slots")
    if self.width != 128:
      parts.append(f"heads of {self.width}")
    parts += [] if self.dtype == "bfloat16" else [self.dtype]
    parts += [] if self.cache_dtype is None else [f"{self.cache_dtype} cache"]
    parts += [] if self.window is None else [f"window of {self.window:,}"]
    parts += [] if self.batch == 8 else [f"batch of {self.batch}"]
    parts += ["gradient"] if self.gradient else []
    return ", ".join(parts)

  @property
  def cache_bytes(self) -> int:
    """Returns the bytes of keys and values, without scales."""
    if not self.capacity:
      return 0
    return 2 * math.prod(self._cache()) * self._cache_dtype().itemsize

  @property
  def keys_of_step(self) -> int:
    """Returns the slots per block of the TPU kernel: a page, or as many as it reads at once."""
    from kernels_pallas.frontier_attention.tpu.kernel import (
      TileSizes,  # Pallas takes long to import
    )

    if not self.capacity:
      return min(TileSizes().fresh, self.entries)
    return self.page or min(TileSizes().cache, self.capacity)

  def _cache_dtype(self):
    return jnp.dtype(self.cache_dtype or self.dtype)

  def _cache(self) -> tuple[int, ...]:
    if self.page is None:
      return self.batch, self.kv_heads, self.capacity, self.width
    # One page more than the rows have: unused entries of the table point there.
    pages = self.batch * (self.capacity // self.page) + 1
    return pages, self.kv_heads, self.page, self.width

  def arguments(self) -> dict[str, Any]:
    """Returns the arguments of `frontier_attention` by name; arrays are jax.ShapeDtypeStruct."""
    B, T, H, G, D = self.batch, self.entries, self.heads, self.kv_heads, self.width
    labels = _array(jnp.int32, B, 1, T)
    named: dict[str, Any] = dict(
      q=_array(self.dtype, B, T, H, D),
      k=_array(self.dtype, B, G, T, D),
      v=_array(self.dtype, B, G, T, D),
      stamp=labels,
      lo=labels,
      hi=labels,
      cache_k=None,
      cache_v=None,
      lengths=None,
    )
    if self.window is not None:
      named["position"] = _array(jnp.int32, B, T)
    if not self.capacity:
      return named
    cache = _array(self._cache_dtype(), *self._cache())
    named |= dict(cache_k=cache, cache_v=cache, lengths=_array(jnp.int32, B))
    if self.page is not None:
      named["page_table"] = _array(jnp.int32, B, self.capacity // self.page)
    if self._cache_dtype().itemsize == 1:
      named["kv_scales"] = (_array(jnp.float32, *self._cache()[:3]),) * 2
    if self.window is not None:
      named["cache_position"] = _array(jnp.int32, B, self.capacity)
    return named


def _array(dtype, *shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)


_ENTRIES = (1, 16, 64, 256)
_REFUSED = 72  # a width that all kernels refuse, as they need multiples of 16

TPU_SHAPES = (
  *(CompiledShape(entries, page=256) for entries in _ENTRIES),
  *(CompiledShape(entries, page=512) for entries in _ENTRIES),
  CompiledShape(16),
  CompiledShape(16, page=256, window=1024),
  CompiledShape(16, page=256, cache_dtype="int8"),
  CompiledShape(16, page=256, dtype="float32"),
  CompiledShape(16, page=256, width=256, heads=16, kv_heads=4),
  CompiledShape(1024, capacity=0, batch=2),
  CompiledShape(256, capacity=0, batch=1, gradient=True),
  *(CompiledShape(16, page=256, width=width) for width in (64, 80, 96)),
  CompiledShape(16, page=256, width=_REFUSED),
)
GPU_SHAPES = (
  *(CompiledShape(entries, page=64) for entries in _ENTRIES[:-1]),
  # Parts of the cache are processed separately and merged: with many entries these results are as
  # large as a small cache.
  CompiledShape(_ENTRIES[-1], page=64, capacity=32_768),
  CompiledShape(16, page=16),
  CompiledShape(16, page=256),
  CompiledShape(16),
  CompiledShape(16, page=64, window=1024),
  CompiledShape(16, page=64, cache_dtype="int8"),
  CompiledShape(16, page=64, cache_dtype="float8_e4m3fn"),
  CompiledShape(16, page=64, dtype="float16"),
  *(CompiledShape(16, page=64, width=width) for width in (64, 80, 96)),
  *(CompiledShape(entries, page=64, width=256, heads=16, kv_heads=4) for entries in (16, 64)),
  CompiledShape(1024, capacity=0, batch=2),
  CompiledShape(16, page=64, width=_REFUSED),
)
# The shape of a layer on several chips.
LAYER = CompiledShape(16, page=256)


def shapes_of(platform: str) -> tuple[CompiledShape, ...]:
  """Returns the shapes of a platform, "tpu" or "gpu"."""
  return {"tpu": TPU_SHAPES, "gpu": GPU_SHAPES}[platform]
