"""What a profile belongs to: the device, its mesh, the model with its weights, and the drafter."""

import functools
import hashlib
import importlib.metadata
import platform
import weakref
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from mtjax import hosts, sharding
from mtjax.native.build import allowed_cores
from mtjax.text import TextModel

_SAMPLE = 16  # elements per array that the fingerprint reads
# What was read of arrays that are alive, by their ids.
_READ: dict[int, tuple[weakref.ref[jax.Array], bytes]] = {}


def identity(text: TextModel, drafter: str, drafter_params: PyTree = None) -> dict[str, str]:
  """Returns what times and acceptance depend on, as names and values: `of` of a profile.

  drafter: its name with its settings, such as "lookup". drafter_params: its weights; None: it has
  none. Models are named with a fingerprint of their config and weights, so that a profile of
  another checkpoint of one name is refused.
  """
  weights = _fingerprint(drafter_params) if _arrays(drafter_params) else ""
  return dict(
    device=device_kind(text.params),
    mesh=mesh_name(text.params),
    target=f"{text.name or 'model'} {fingerprint(text)}",
    drafter=f"{drafter} {weights}".strip(),
    dtype="+".join(sorted({_dtype(leaf) for leaf in jax.tree.leaves(text.params)})),
    jax=jax.__version__,
    mtjax=_version(),
  )


def device_kind(params: PyTree = None) -> str:
  """Returns the kind of device that parameters lie on, and of a CPU its model and its cores.

  The cores are those that this process may run on. Without parameters on a device it is the kind of
  JAX's first one.
  """
  arrays = (leaf for leaf in jax.tree.leaves(params) if isinstance(leaf, jax.Array))
  device = next((one for leaf in arrays for one in leaf.devices()), None) or jax.devices()[0]
  if device.platform != "cpu":
    return device.device_kind
  return f"cpu, {_cpu_model()}, {allowed_cores()} cores"


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


def mesh_name(params: PyTree) -> str:
  """Returns the axes of the mesh that parameters lie on, as "data:2,model:4"; "1" without one.

  Of a mesh with devices of several processes it says how many they are: what is exchanged between
  machines takes another time.
  """
  mesh = sharding.mesh_of(params)
  if mesh is None:
    return "1"
  shared = f" of {hosts.count()} processes" if hosts.is_shared(mesh) else ""
  return f"{sharding.describe_mesh(mesh)}{shared}"


def platform_of(params: PyTree) -> str:
  """Returns the platform of the devices that parameters lie on: "cpu", "gpu" or "tpu".

  Of parameters that lie on no device it is the default one.
  """
  for leaf in jax.tree.leaves(params):
    if isinstance(leaf, jax.Array):
      return next(iter(leaf.devices())).platform
  return jax.default_backend()


def fingerprint(text: TextModel) -> str:
  """Returns 12 hexadecimal digits of a model's config and weights."""
  return _fingerprint(text.params, repr(text.model.config))


def _fingerprint(params: PyTree, more: str = "") -> str:
  """Returns a hash of names, shapes and dtypes of all arrays, and of some elements of each.

  Of arrays with parts in several processes each process reads its own ones, and all must call it.
  """
  digest = hashlib.sha256(more.encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    digest.update(f"{jax.tree_util.keystr(path)} {np.shape(leaf)} {_dtype(leaf)}".encode())
    for part in _parts_here(leaf):
      digest.update(_read(part))
  found = digest.hexdigest()
  if hosts.spans(params):
    found = hashlib.sha256(" ".join(hosts.gather(found)).encode()).hexdigest()
  return found[:12]


def _parts_here(leaf) -> list:
  """Returns an array, or what this process has of one that others have parts of."""
  if getattr(leaf, "is_fully_addressable", True):
    return [leaf] if np.size(leaf) else []
  return [shard.data for shard in leaf.addressable_shards if shard.data.size]


def _read(leaf) -> bytes:
  """Returns some elements of an array.

  JAX's arrays never change, so what was read of one is kept as long as the array lives.
  """
  if not isinstance(leaf, jax.Array):
    return _elements(leaf).tobytes()
  key = id(leaf)
  known = _READ.get(key)
  if known is None or known[0]() is not leaf:
    forget = weakref.ref(leaf, lambda _: _READ.pop(key, None))
    known = _READ[key] = (forget, _elements(leaf).tobytes())
  return known[1]


def _elements(leaf) -> np.ndarray:
  """Returns elements far from each other: the first ones of many arrays are those of padding."""
  if not np.ndim(leaf):
    return np.full(_SAMPLE, leaf)
  # By index and not by place in a flat array, which would be a copy, of all devices on each one. An
  # array of stacked layers may have more than 2**31 elements.
  places = np.linspace(0, np.size(leaf) - 1, _SAMPLE).astype(np.int64)
  return np.asarray(leaf[np.unravel_index(places, np.shape(leaf))])


def _dtype(leaf) -> str:
  return str(getattr(leaf, "dtype", type(leaf).__name__))


def _arrays(params: PyTree) -> bool:
  """Returns true for weights; the handle of a store on the host is a single number."""
  return any(np.size(leaf) > 1 for leaf in jax.tree.leaves(params))
