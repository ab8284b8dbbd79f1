"""Arrays that every process has, put on the devices of all of them."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mtjax.hosts.agreement import check_whole_mesh, of_first
from mtjax.hosts.who import count


def put(tree: Any, shardings: Any) -> Any:
  """Returns `jax.device_put(tree, shardings)`, for devices of several processes too.

  Every process must have the same values, which is not checked: JAX would send each array to all
  processes to compare them.
  """
  if count() == 1:
    return jax.device_put(tree, shardings)
  return jax.tree.map(_put, tree, shardings)


def spans(*trees: Any) -> bool:
  """Returns whether an array has parts on devices of other processes."""
  return any(not getattr(x, "is_fully_addressable", True) for x in jax.tree.leaves(trees))


def is_shared(mesh: Mesh | None) -> bool:
  """Returns whether a mesh has devices of other processes."""
  if mesh is None or count() == 1:
    return False
  return any(device.process_index != jax.process_index() for device in mesh.devices.flat)


def agreed(value: Any, mesh: Mesh | None) -> Any:
  """Returns the JSON value that process 0 has, on a mesh with devices of several processes.

  On any other mesh it is `value`. What programs depend on, and no two processes know alike, such as
  times, must be agreed upon. Every process of the mesh must call it.
  """
  return of_first(value) if is_shared(mesh) else value


def check_own_or_whole(mesh: Mesh | None) -> None:
  """Raises ValueError for a mesh with some of the devices of other processes, but not all."""
  if is_shared(mesh):
    assert mesh is not None
    check_whole_mesh(mesh)


def check_not_spread(what: str, tree: Any) -> None:
  """Raises ValueError for arrays with parts on devices of other processes; `what` is plural."""
  if count() > 1 and spans(tree):
    raise ValueError(
      f"{what} are spread over the devices of {count()} processes: give mesh=, the mesh that they "
      "are on"
    )


def _put(leaf: Any, sharding: Any) -> jax.Array:
  if sharding.is_fully_addressable:
    return jax.device_put(leaf, sharding)
  if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
    return leaf
  if spans(leaf) and not leaf.is_fully_replicated:
    # device_put takes no array of several processes to another layout.
    return jax.jit(lambda x: x, out_shardings=sharding)(leaf)
  if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    numbers = _put(jax.random.key_data(leaf), sharding)
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
  values = np.asarray(leaf)
  return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)
