"""Chips that can be compiled for without one, and what their compilers need installed."""

import dataclasses
from importlib import metadata
from typing import Literal, get_args

from kernels_pallas.frontier_attention.dispatch import Implementation


@dataclasses.dataclass(frozen=True)
class Chip:
  name: str
  platform: Literal["tpu", "gpu"]
  topology: str  # of a TPU as its compiler names it, of a GPU the name of a target
  memory: int  # a core's VMEM, or what a block of threads can have of shared memory: bytes
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
# Of platforms that attention has a kernel for.
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
  """Why this platform cannot be compiled for here; None: it can."""
  absent = [name for name in _COMPILERS[platform] if _version(name) is None]
  if not absent:
    return None
  names = " and ".join(absent)
  return f"compiling for a {platform} without one needs {names}: the extra `aot` (make test-aot)"


def versions(platform: str) -> dict[str, str | None]:
  """Of jax and of the compiler for this platform (None: not installed)."""
  return {name: _version(name) for name in ("jax", _COMPILERS[platform][0])}


def _version(name: str) -> str | None:
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return None
