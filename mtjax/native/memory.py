"""Memory for weights: huge pages, so that their addresses are found quickly."""

import math
import mmap
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import PyTree

_HUGE = 2 << 20
_LINE = 64
# Shared memory, which is Python's default, has huge pages only if the system is configured so.
_PRIVATE = dict(flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if hasattr(mmap, "MAP_PRIVATE") else {}


def on_huge_pages(tree: PyTree) -> PyTree:
  """Returns the same arrays in one block of memory that requests 2 MiB pages, in tree order.

  Hardware prefetches only within a page: in measurements, a decoding step reads its weights up to
  1.5 times as fast. The arrays are ordinary and immutable; pass them to jitted functions as
  arguments (a closed-over array becomes a copy), and keep them on their CPU. If the arrays are not
  on a CPU under Linux, the tree is returned as it is.
  """
  leaves, structure = jax.tree.flatten(tree)
  if not hasattr(mmap, "MADV_HUGEPAGE") or not all(_on_one_cpu(leaf) for leaf in leaves):
    return tree
  ends = np.cumsum([-(-leaf.nbytes // _LINE) * _LINE for leaf in leaves])
  if not leaves or ends[-1] < _HUGE:
    return tree
  memory = huge_memory(int(ends[-1]))
  placed = []
  for leaf, end in zip(leaves, ends, strict=True):
    begin = int(end) - -(-leaf.nbytes // _LINE) * _LINE
    view = memory[begin : begin + leaf.nbytes].view(leaf.dtype).reshape(leaf.shape)
    view[...] = leaf
    view.flags.writeable = False
    # The view is aligned and read-only: the CPU backend uses it without a copy and keeps it alive.
    placed.append(jax.device_put(view, leaf.sharding, may_alias=True))
  return jax.tree.unflatten(structure, placed)


def huge_array(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
  """Returns zeros of this shape and type on huge pages, if the system has them."""
  size = math.prod(shape) * dtype.itemsize
  return huge_memory(size)[:size].view(dtype).reshape(shape)


def without_copy(array: np.ndarray) -> jax.Array:
  """Returns the memory of an aligned array as one of JAX on a CPU; do not write to it any more."""
  array.flags.writeable = False
  return jax.device_put(array, jax.devices("cpu")[0], may_alias=True)


def huge_memory(size: int) -> np.ndarray:
  """Returns `size` zero bytes, aligned to a huge page, on huge pages if the system has them."""
  block = mmap.mmap(-1, size + _HUGE, **_PRIVATE)
  if hasattr(mmap, "MADV_HUGEPAGE"):
    try:
      block.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # the kernel was built without them
      pass
  memory = np.frombuffer(block, np.uint8)
  begin = -memory.ctypes.data % _HUGE
  return memory[begin : begin + size]


def _on_one_cpu(leaf) -> bool:
  return (
    isinstance(leaf, jax.Array)
    and len(leaf.devices()) == 1
    and next(iter(leaf.devices())).platform == "cpu"
  )
