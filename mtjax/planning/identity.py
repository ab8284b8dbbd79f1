"""What a profile belongs to: the device, its mesh, the model with its weights, and the drafter."""

import functools
import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from mtjax import sharding
from mtjax.text import TextModel

_SAMPLE = 16  # elements per array that the fingerprint reads


def identity(text: TextModel, drafter: str, drafter_params: PyTree = None) -> dict[str, str]:
  """Returns what times and acceptance depend on, as names and values: `of` of a profile.

  drafter: its name with its settings, such as "lookup". drafter_params: its weights; None: it has
  none. Models are named with a fingerprint of their config and weights, so that a profile of
  another checkpoint of one name is refused.
  """
  weights = _fingerprint(drafter_params) if _arrays(drafter_params) else ""
  return dict(
    device=device_kind(),
    mesh=mesh_of(text.params),
    target=f"{text.name or 'model'} {fingerprint(text)}",
    drafter=f"{drafter} {weights}".strip(),
    dtype="+".join(sorted({_dtype(leaf) for leaf in jax.tree.leaves(text.params)})),
    jax=jax.__version__,
    mtjax=_version(),
  )


def device_kind() -> str:
  """Returns the kind of the first device, and of a CPU its model and the number of its cores."""
  device = jax.devices()[0]
  if device.platform != "cpu":
    return device.device_kind
  return f"cpu, {_cpu_model()}, {len(os.sched_getaffinity(0))} cores"


@functools.cache
def _cpu_model() -> str:
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
  return next(filter(None, names), platform.processor() or platform.machine())


def _version() -> str:
  try:
    return importlib.metadata.version("mtjax")
  except importlib.metadata.PackageNotFoundError:
    return "unknown"


def mesh_of(params: PyTree) -> str:
  """Returns the axes of the mesh that parameters lie on, as "data:2,model:4"; "1" without one."""
  mesh = sharding.mesh_of(params)
  return "1" if mesh is None else sharding.describe_mesh(mesh)


def fingerprint(text: TextModel) -> str:
  """Returns 12 hexadecimal digits of a model's config and weights."""
  return _fingerprint(text.params, repr(text.model.config))


def _fingerprint(params: PyTree, more: str = "") -> str:
  """Returns a hash of names, shapes and dtypes of all arrays, and of some elements of each."""
  digest = hashlib.sha256(more.encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    digest.update(f"{jax.tree_util.keystr(path)} {np.shape(leaf)} {_dtype(leaf)}".encode())
    if getattr(leaf, "is_fully_addressable", True) and np.size(leaf):
      # Elements far from each other: the first ones of many arrays are those of padding.
      flat = leaf.reshape(-1)
      places = np.linspace(0, flat.shape[0] - 1, _SAMPLE).astype(np.int32)
      digest.update(np.asarray(flat[places]).tobytes())
  return digest.hexdigest()[:12]


def _dtype(leaf) -> str:
  return str(getattr(leaf, "dtype", type(leaf).__name__))


def _arrays(params: PyTree) -> bool:
  """Returns true for weights; the handle of a store on the host is a single number."""
  return any(np.size(leaf) > 1 for leaf in jax.tree.leaves(params))
