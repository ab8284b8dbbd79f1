"""Which dimension of an array is split over which axis, and kernels on a mesh."""

import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree, Shaped

from mtjax.sharding.mesh import DATA, MODEL, SEQUENCE, fitting


class Pages(enum.Enum):
  """The placement on devices of a cache's pages, which many rows share."""

  SHARED = "shared"  # every device has all pages, with its heads alone
  OWN = "own"  # a device has the pages that the tables of its rows (or slots) name


class Split(NamedTuple):
  """The mesh axis over which attention splits each dimension; None: it is not split.

  The default splits rows and heads, so devices exchange nothing. LONG_ROWS is for few rows with
  long caches, FEW_KEY_HEADS for fewer key heads than devices.
  """

  rows: str | None = DATA
  heads: str | None = MODEL  # query heads are split by whole groups, with their key head
  slots: str | None = None  # slots of the cache are split in equal consecutive parts
  pages: Pages = Pages.SHARED
  vocabulary: str | None = MODEL  # logits, as the columns of the head that makes them


LONG_ROWS = Split(rows=None, slots=DATA)
FEW_KEY_HEADS = Split(heads=None, slots=MODEL)
CACHE = Split(slots=SEQUENCE)  # of the caches that decoding allocates on a mesh


def spec_of(roles: str, split: Split = Split()) -> P:
  """Returns the PartitionSpec of an array whose dimensions are named by one letter each.

  The letters: "b" rows, "h" heads, "s" slots, "p" pages, "v" the vocabulary, "." not split. The
  keys of a cache are "bhs.".
  """
  names = dict(
    b=split.rows,
    h=split.heads,
    s=split.slots,
    p=page_axes(split) or None,
    v=split.vocabulary,
  )
  return P(*(names.get(role) for role in roles))


def sharding_of(
  shape: Sequence[int], roles: str, mesh: Mesh | AbstractMesh, split: Split = Split()
) -> NamedSharding:
  """Returns the NamedSharding of an array whose dimensions are named as for `spec_of`.

  A dimension that its axis does not divide is whole on every device of that axis.
  """
  return NamedSharding(mesh, fitting(spec_of(roles, split), shape, mesh))


def place(x: Shaped[Array, "..."], roles: str, split: Split = Split()) -> Shaped[Array, "..."]:
  """Returns the array, split over the mesh of `jax.set_mesh` as `sharding_of` says.

  Without a mesh of several devices, and under shard_map, the array is returned as it is.
  """
  mesh = mesh_here()
  if mesh is None:
    return x
  return jax.lax.with_sharding_constraint(x, fitting(spec_of(roles, split), x.shape, mesh))


def mesh_here() -> AbstractMesh | None:
  """Returns the mesh of `jax.set_mesh` if arrays may be split over it, else None.

  It is None for a mesh of one device, and under shard_map, where arrays are parts already.
  """
  mesh = jax.sharding.get_abstract_mesh()
  whole = mesh.empty or mesh.size == 1 or AxisType.Manual in mesh.axis_types
  return None if whole else mesh


def parts_here(role: str, split: Split = Split()) -> int:
  """Returns the number of parts of a dimension on the mesh of `mesh_here`; without one, 1."""
  mesh, (axis,) = mesh_here(), spec_of(role, split)
  return 1 if mesh is None else mesh.shape.get(axis, 1)


def on_parts(
  function: Callable[..., tuple],
  *arrays: PyTree,
  roles: Sequence[PyTree],
  like: Sequence[int],
  split: Split = Split(),
) -> tuple:
  """Returns `function(part, *arrays)`, which each device computes of its own parts alone.

  `roles` has the letters of each argument, and result i is laid out like argument like[i]. `part`
  is the number of the device's slots among the parts of all slots. A dimension that its axis does
  not divide is whole. Without a mesh (`mesh_here`) there is one part.
  """
  mesh = mesh_here()
  if mesh is None:
    return function(0, *arrays)
  specs = jax.tree.map(
    lambda letters, x: fitting(spec_of(letters, split), x.shape, mesh), tuple(roles), arrays
  )
  # Slots that their axis does not divide are whole on every device.
  slots = split.slots is not None and any(split.slots in spec for spec in jax.tree.leaves(specs))

  def on_a_device(*parts):
    return function(jax.lax.axis_index(split.slots) if slots else 0, *parts)

  results = tuple(specs[i] for i in like)
  return jax.shard_map(on_a_device, mesh=mesh, in_specs=specs, out_specs=results, check_vma=False)(
    *arrays
  )


def page_axes(split: Split) -> tuple[str, ...]:
  """Returns the axes that pages are split over, in order."""
  axes = (split.rows, split.slots) if split.pages is Pages.OWN else ()
  return tuple(axis for axis in axes if axis is not None)


def over_heads(
  kernel: Callable,
  mesh: Mesh | AbstractMesh,
  *,
  in_axes: Any,
  out_axes: Any,
  split: Split = Split(),
) -> Callable:
  """Returns `kernel` under shard_map: each device computes its rows and heads, without exchange.

  A kernel is opaque to GSPMD, which would gather its operands. `in_axes` and `out_axes` are pytrees
  of letters for `spec_of`, as in over_heads(f, mesh, in_axes=("b.h.", "bh.."), out_axes="b.h.").
  """
  specs = functools.partial(jax.tree.map, lambda roles: spec_of(roles, split))
  return jax.shard_map(
    kernel, mesh=mesh, in_specs=specs(in_axes), out_specs=specs(out_axes), check_vma=False
  )
