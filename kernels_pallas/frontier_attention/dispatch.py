"""Which implementation runs: what each supports, with reasons in words."""

from typing import Literal, NamedTuple

import jax
from jax.sharding import AxisType, get_abstract_mesh

from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.tpu import tiles as tpu_tiles

Implementation = Literal["reference", "xla", "tpu", "tpu_interpret", "gpu", "gpu_interpret"]

# Five integers a step in the 1 MiB of scalar memory, and some of it is the compiler's.
_MOST_STEPS = 40_000
_HOPPER = ("H100", "H200", "H800", "H20", "GH200")


class Choice(NamedTuple):
  name: Implementation
  reason: str


def chosen(q: jax.Array, k: jax.Array, cache: Cache | None = None, dims: int = 1) -> Choice:
  """What `implementation=None` takes for these shapes, and why. Never fails.

  dims: of the intervals, of which a window is one.
  """
  platform = platform_here()
  if platform not in _KERNELS:
    return Choice("xla", f"blocks in XLA: there is no kernel for {platform}")
  name = platform.upper()
  if partitioned():
    why = f"on a mesh the {name} kernel must be called under shard_map"
    return Choice("xla", f"blocks in XLA: {why}")
  reason = why_not(platform, q, k, cache, dims) or _why_not_here(platform)
  if reason is not None:
    return Choice("xla", f"blocks in XLA: the {name} kernel {reason}")
  return Choice(platform, f"the {name} kernel")


def _why_not_here(platform: str) -> str | None:
  """What is wrong with the device at hand, or the abstract one that is compiled for."""
  if platform != "gpu":
    return None
  device = get_abstract_mesh().abstract_device
  kind = jax.devices()[0].device_kind if device is None else device.device_kind
  if not any(name in kind for name in _HOPPER):
    return f"is for Hopper ({', '.join(_HOPPER)}), not {kind}"
  return None


# All that a choice looks at.
Shaped = jax.Array | jax.ShapeDtypeStruct


def why_not(name: str, q: Shaped, k: Shaped, cache: Cache | None, dims: int = 1) -> str | None:
  """What a kernel by name cannot do of this; None: it can, or it is no kernel."""
  return _KERNELS[name](q, k, cache, dims) if name in _KERNELS else None


def platform_here() -> str:
  """Of the abstract device that is being compiled for, if there is one, else of this process."""
  device = get_abstract_mesh().abstract_device
  platform = jax.default_backend() if device is None else device.platform
  return "gpu" if platform in ("cuda", "rocm") else platform


def kernel_here() -> Implementation | None:
  """The kernel of the platform, if there is one, whatever it can do."""
  platform = platform_here()
  return platform if platform in _KERNELS else None


def partitioned() -> bool:
  """Arrays here may lie on several devices: XLA splits the program, and a kernel is opaque to it.

  Under shard_map they do not: what a kernel gets is a device's own.
  """
  mesh = get_abstract_mesh()
  axes = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
  return any(size > 1 and kind != AxisType.Manual for size, kind in axes)


def slots_here(slots: int, width: int) -> int:
  """Of a row of a cache of heads of `width`, at least `slots`: as many as the kernel here can read.

  On a TPU up to 127 more, where heads do not fill their lanes; on a GPU up to 7; elsewhere more
  would be no use.
  """
  platform = platform_here()
  multiple = 128 if platform == "tpu" and width % 128 else 8 if platform == "gpu" else 1
  return -(-slots // multiple) * multiple


def why_not_tpu(q: Shaped, k: Shaped, cache: Cache | None, dims: int) -> str | None:
  """What the TPU kernel cannot do of this; None: it can."""
  batch, entries, heads, width = q.shape
  if q.dtype.name not in ("float32", "bfloat16"):
    return f"computes in float32 or bfloat16, not {q.dtype.name}"
  if width % 16:
    return f"needs heads of a multiple of 16 dimensions, not {width}"
  blocks, page = -(-entries // 128), 128
  if cache is not None:
    slots = cache.k.shape[2]  # of a page, or of a row
    if width % 128 and slots % 128:
      # Only then do slots fill the lanes better than anything else: see `tpu._call`.
      kind = "rows" if cache.table is None else "pages"
      return (
        f"needs {kind} of a multiple of 128 slots for heads of {width} dimensions, not {slots}: "
        "it would copy the cache"
      )
    page = 128 if cache.table is None else slots
    sublanes = 32 // cache.k.dtype.itemsize
    if page % sublanes:
      return f"needs pages of a multiple of {sublanes} slots in {cache.k.dtype.name}, not {page}"
  fitting = tpu_tiles.fitting(q, k, cache)
  if fitting is None:
    size = f"{k.shape[1]} key heads of {width} dimensions"
    return f"has no room for pages of {page} slots of {size}"
  rows, page = fitting
  if cache is not None:
    blocks += -(-cache.capacity // page)
  tiles = -(-entries * (heads // k.shape[1]) // rows)
  if batch * tiles * blocks > _MOST_STEPS:
    return f"lists up to {_MOST_STEPS:,} blocks, and here may be {batch * tiles * blocks:,}"
  return None


def why_not_gpu(q: Shaped, k: Shaped, cache: Cache | None, dims: int) -> str | None:
  """What the GPU kernel cannot do of this; None: it can."""
  width = q.shape[3]
  if q.dtype.name not in ("float16", "bfloat16") or k.dtype != q.dtype:
    # WGMMA would take float32 in TF32, 10 bits of it.
    return f"computes in float16 or bfloat16, not {q.dtype.name} and {k.dtype.name}"
  if width % 16 or width > 256:
    return f"has heads of multiples of 16 up to 256 dimensions, not {width}"
  if dims > 4:
    return f"has registers for intervals of 4 dimensions, not {dims}"
  if cache is None:
    return None
  narrow, slots = cache.k.dtype.itemsize == 1, cache.k.shape[2]  # of a page, or of a row
  if not narrow and cache.k.dtype != q.dtype:
    return f"reads a cache of {q.dtype.name} or of 8 bits, not {cache.k.dtype.name}"
  if narrow and width > 208:
    return f"has room for 8-bit heads of up to 208 dimensions, not {width}"
  if cache.table is None:
    if slots > 64 and slots % 8:
      return f"needs rows of a multiple of 8 slots, not {slots}"
    return None
  # Tensors in shared memory begin at multiples of 128 bytes: 32 scales.
  minimum = 32 if narrow else 8
  if slots not in (8, 16, 32) and slots % 64 or slots < minimum:
    return f"needs pages of {minimum} slots and more, powers of 2 or multiples of 64, not {slots}"
  return None


_KERNELS = dict(tpu=why_not_tpu, gpu=why_not_gpu)
