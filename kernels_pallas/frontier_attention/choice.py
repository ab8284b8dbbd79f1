"""Which implementation runs: what each supports, with reasons in words."""

from typing import Literal, NamedTuple

import jax
from jax.sharding import get_abstract_mesh

from kernels_pallas.frontier_attention.cache_blocks import Cache

Implementation = Literal["reference", "xla", "tpu", "tpu_interpret"]

# Five integers a step in the 1 MiB of scalar memory, and some of it is the compiler's.
_MOST_STEPS = 40_000
_TILE_ROWS = 256


class Choice(NamedTuple):
  name: Implementation
  reason: str


def chosen(q: jax.Array, k: jax.Array, cache: Cache | None = None) -> Choice:
  """What `implementation=None` takes for these shapes, and why. Never fails."""
  platform = platform_here()
  if platform != "tpu":
    return Choice("xla", f"blocks in XLA: there is no kernel for {platform}")
  if get_abstract_mesh().size > 1:
    return Choice("xla", "blocks in XLA: on a mesh the TPU kernel must be called under shard_map")
  reason = why_not_tpu(q, k, cache)
  if reason is not None:
    return Choice("xla", f"blocks in XLA: the TPU kernel {reason}")
  return Choice("tpu", "the TPU kernel")


def platform_here() -> str:
  """Of the abstract device that is being compiled for, if there is one, else of this process."""
  device = get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform


def why_not_tpu(q: jax.Array, k: jax.Array, cache: Cache | None) -> str | None:
  """What the TPU kernel cannot do of this; None: it can."""
  batch, entries, heads, width = q.shape
  if q.dtype.name not in ("float32", "bfloat16"):
    return f"computes in float32 or bfloat16, not {q.dtype.name}"
  if width % 16:
    return f"needs heads of a multiple of 16 dimensions, not {width}"
  blocks = -(-entries // 128)
  if cache is not None:
    slots = cache.k.shape[2]  # of a page, or of a row
    if width % 128 and slots % 128:
      # Only then do slots fill the lanes better than anything else: see `tpu._call`.
      kind = "rows" if cache.table is None else "pages"
      return (
        f"needs {kind} of a multiple of 128 slots for heads of {width} dimensions, not {slots}: "
        "it would copy the cache"
      )
    page = 256 if cache.table is None else slots
    sublanes = 32 // cache.k.dtype.itemsize
    if page % sublanes:
      return f"needs pages of a multiple of {sublanes} slots in {cache.k.dtype.name}, not {page}"
    blocks += -(-cache.capacity // page)
  tiles = -(-entries * (heads // k.shape[1]) // _TILE_ROWS)
  if batch * tiles * blocks > _MOST_STEPS:
    return f"lists up to {_MOST_STEPS:,} blocks, and here may be {batch * tiles * blocks:,}"
  return None
