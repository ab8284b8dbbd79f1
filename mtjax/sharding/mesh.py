"""The mesh of devices and its axes, from the text of a config."""

import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from mtjax import hosts
from mtjax.arguments import integer

DATA, MODEL, SEQUENCE = AXES = ("data", "model", "sequence")

# What a config may say: "data:2,model:4", {"data": 2, "model": 4}, (2, 4), a mesh, None or "".
MeshLike = str | Mapping[str, int] | Sequence[int] | Mesh | None


def make_mesh(
  data: int = 1, model: int = 1, sequence: int = 1, *, devices: Sequence[Any] | None = None
) -> Mesh:
  """Returns a data x model x sequence mesh with Auto axes, of the first devices.

  `data` splits the rows of a batch, `model` heads and weights, `sequence` the slots of a cache.
  Raises ValueError when there are fewer devices than the product of the sizes, and for a size
  below 1.
  """
  sizes = tuple(integer(n, "the size of a mesh axis") for n in (data, model, sequence))
  _check_sizes(sizes)
  devices = jax.devices() if devices is None else devices
  number = data * model * sequence
  if number > len(devices):
    raise ValueError(
      f"a mesh of {_described(sizes)} needs {number} devices, but there are "
      f"{_too_few(number, devices)}"
    )
  return jax.make_mesh(
    sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[:number]
  )


def parse_mesh(setting: MeshLike, *, devices: Sequence[Any] | None = None) -> Mesh | None:
  """Returns the mesh that a config names, or None for None and "".

  `setting`: "data:2,model:4" with the axes data, model and sequence in any order (those left out
  have size 1); a mapping from axes to sizes; the sizes of data, model and, if there are three, of
  sequence; or a mesh, which is returned as it is. devices: None: those of this process, also in a
  job of several processes, where `make_mesh` makes a mesh of all devices. Raises ValueError for an
  axis that does not exist or is named twice, a size that is no whole number of at least 1, too few
  devices, and a mesh with other axes than those of `make_mesh`.
  """
  if isinstance(setting, Mesh):
    _check_axes(setting)
    return setting
  if setting is None or isinstance(setting, str) and not setting.strip():
    return None
  sizes = mesh_sizes(setting)
  if devices is None:
    devices = jax.local_devices()
    _check_own(sizes, len(devices))
  return make_mesh(**sizes, devices=devices)


def mesh_sizes(setting: MeshLike) -> dict[str, int]:
  """Returns the size of each axis of a mesh that `parse_mesh` reads, without looking for devices.

  All sizes are 1 for None and "". Raises ValueError as `parse_mesh` does, but for too few devices.
  """
  sizes: Mapping[str, Any] | None = None
  if setting is None or isinstance(setting, str):
    sizes = _sizes(setting) if setting and setting.strip() else {}
  elif isinstance(setting, Mesh):
    sizes = dict(setting.shape)
  elif isinstance(setting, Mapping):
    sizes = dict(setting)
    if unknown := [axis for axis in sizes if axis not in AXES]:
      raise ValueError(f"a mesh has the axes {', '.join(AXES)}, not {unknown[0]!r}")
  elif isinstance(setting, Sequence) and 2 <= len(setting) <= len(AXES):
    sizes = dict(zip(AXES, setting, strict=False))
  if sizes is None:
    raise ValueError(
      f"mesh is {setting!r}: give a text such as 'data:2,model:4', the same as a mapping, or the "
      "numbers of devices of (data, model)"
    )
  whole = {axis: integer(sizes.get(axis, 1), "the size of a mesh axis") for axis in AXES}
  _check_sizes(tuple(whole.values()))
  return whole


def _sizes(text: str) -> dict[str, int]:
  sizes: dict[str, int] = {}
  for part in text.split(","):
    axis, colon, size = (word.strip() for word in part.partition(":"))
    if axis not in AXES:
      raise ValueError(
        f"mesh {text!r}: a mesh has the axes {', '.join(AXES)}, not {axis!r}; such as "
        "'data:2,model:4'"
      )
    if axis in sizes:
      raise ValueError(f"mesh {text!r} names the axis {axis!r} twice")
    if not colon or not re.fullmatch(r"[+-]?[0-9]+", size):
      raise ValueError(
        f"mesh {text!r}: the axis {axis!r} needs a number of devices, such as '{axis}:2'"
      )
    sizes[axis] = int(size)
  return sizes


def describe_mesh(mesh: Mesh | AbstractMesh) -> str:
  """Returns the mesh as `parse_mesh` reads it: "data:2,model:4,sequence:1"."""
  return ",".join(f"{axis}:{size}" for axis, size in mesh.shape.items())


def mesh_of(arrays: PyTree) -> Mesh | None:
  """Returns the mesh of several devices that arrays lie on, such as parameters, or None.

  It is that of the first array with a NamedSharding on such a mesh, whatever axes the mesh has.
  """
  for leaf in jax.tree.leaves(arrays):
    sharding = getattr(leaf, "sharding", None)
    if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
      return sharding.mesh
  return None


def on_mesh(mesh: Mesh | None) -> contextlib.AbstractContextManager:
  """Returns `jax.set_mesh(mesh)`, or a context that does nothing for None.

  Programs that are traced inside know the mesh: caches and attention are split over it.
  """
  return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def fitting(partition: P, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> P:
  """Returns the spec without the axes that are not on the mesh or do not divide their dimension."""
  if len(partition) > len(shape):
    raise ValueError(f"the spec {partition} has more dimensions than an array of shape {shape}")
  pairs = zip(partition, shape, strict=False)
  return P(*(name if _divides(mesh, name, size) else None for name, size in pairs))


def _divides(mesh, name: str | None, size: int) -> bool:
  return name is not None and name in mesh.shape and size % mesh.shape[name] == 0


def _check_axes(mesh: Mesh) -> None:
  kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
  if set(kinds) != set(AXES) or set(kinds.values()) != {AxisType.Auto}:
    found = ", ".join(f"{name} ({kind.name})" for name, kind in kinds.items())
    raise ValueError(
      f"a mesh has the axes {', '.join(AXES)}, all of type Auto; this one has {found}: make it by "
      "mtjax.sharding.make_mesh"
    )


def _check_own(sizes: Mapping[str, int], own: int) -> None:
  """Raises ValueError, in a job of several processes, for a mesh larger than this process has."""
  number = math.prod(sizes.values())
  if hosts.count() > 1 and number > own:
    shown = ", ".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1)
    raise ValueError(
      f"a mesh of {_described(sizes.values())} needs {number} devices, but this process has {own}: "
      f"in a job of {hosts.count()} processes a mesh that is written as text or as sizes is of the "
      "devices of one process. For those of all processes, give the mesh "
      f"mtjax.sharding.make_mesh({shown}), whose sizes must multiply to {len(jax.devices())}"
    )


def _too_few(number: int, devices: Sequence[Any]) -> str:
  """Returns how many devices there are, and how to have more of them if there is a way."""
  if (processes := hosts.count()) > 1:
    whole = len(devices) == len(jax.devices())
    return f"{len(devices)}" + f" in the {processes} processes of this job" * whole
  return (
    f'{len(devices)}; on a CPU, jax.config.update("jax_num_cpu_devices", {number}) before anything '
    "is computed makes so many, and so does "
    f"XLA_FLAGS=--xla_force_host_platform_device_count={number}"
  )


def _check_sizes(sizes: Iterable[int]) -> None:
  if min(sizes) < 1:
    raise ValueError(f"mesh sizes must be at least 1, got {_described(sizes)}")


def _described(sizes: Iterable[int]) -> str:
  return ",".join(f"{axis}:{size}" for axis, size in zip(AXES, sizes, strict=True))
