"""Chips that can be compiled for without having one, and the packages that compilers need."""

import dataclasses
from importlib import metadata
from typing import Literal, get_args

from kernels_pallas.frontier_attention.dispatch import Implementation


@dataclasses.dataclass(frozen=True)
class Chip:
  name: str
  platform: Literal["tpu", "gpu"]
  topology: str  # a TPU's topology as its compiler names it, or the name of a GPU
  memory: int  # bytes of VMEM per core, or of shared memory per block of threads
  mesh: tuple[int, int] | None = None  # data x model; None: one chip


def _tpu(name: str, topology: str, mebibytes: int, mesh=None) -> Chip:
  return Chip(name, "tpu", topology, mebibytes << 20, mesh)


_EVERY = {
  chip.name: chip
  for chip in (
    _tpu("v4", "v4:2x2x1", 16),
    _tpu("v5e", "v5e:2x2", 128),
    _tpu("v5p", "v5p:2x2x1", 64),
    _tpu("v6e", "v6e:2x2", 128),
    _tpu("7x", "tpu7x:2x2x1", 64),
    Chip("sm_90a", "gpu", "NVIDIA H200", 232_448),
  )
}
# The chips of platforms that attention has a kernel for.
CHIPS = {name: chip for name, chip in _EVERY.items() if chip.platform in get_args(Implementation)}
MESHES = {
  chip.name: chip
  for chip in (
    _tpu("v5e 2x4", "v5e:2x4", 128, (2, 4)),
    _tpu("v6e 2x4", "v6e:2x4", 128, (2, 4)),
  )
}
_COMPILERS = {
  "tpu": ("libtpu",),
  "gpu": (
    "nvidia-cuda-nvcc",
    "nvidia-nvjitlink",
    "nvidia-nvvm",
    "jax-cuda13-pjrt",
    "jax-cuda13-plugin",
  ),
}


def missing(platform: str) -> str | None:
  """Returns why this platform cannot be compiled for here; None: it can."""
  absent = [name for name in _COMPILERS[platform] if _version(name) is None]
  if not absent:
    return None
  names = " and ".join(absent)
  return f"compiling for a {platform} without one needs {names}: the extra `aot` (make test-aot)"


def versions(platform: str) -> dict[str, str | None]:
  """Returns the versions of jax and of the compiler for this platform (None: not installed)."""
  return {name: _version(name) for name in ("jax", _COMPILERS[platform][0])}


def _version(name: str) -> str | None:
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return None
