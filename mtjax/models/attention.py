"""Frontier attention on one device, or split over a mesh under shard_map."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, Bool, Float

from kernels_pallas.frontier_attention import dispatch as choice
from kernels_pallas.frontier_attention import frontier_attention, merged_over
from mtjax import sharding
from mtjax.sharding import Pages, Split

_SIGNATURE = inspect.signature(frontier_attention)
_KEYS = ("k", "v", "cache_k", "cache_v", "kv_scales")
_ROLES = dict(
  q="b.h.",
  **dict.fromkeys(("stamp", "lo", "hi"), "b.."),
  **dict.fromkeys(("position", "hidden", "own"), "b."),
  lengths="b",
  page_table="bs",
  cache_position="bs",
  first_head="",
)


def attention(
  *arguments: Any, **options: Any
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Computes `frontier_attention` for models, with the same arguments, on a mesh or not.

  Under `jax.set_mesh`, if there is a kernel, every device runs it on its rows and its heads; an
  axis that the mesh does not divide is whole on every device, as with parameters. If there is no
  kernel, XLA splits the blocks itself, but for three cases in which it would send the cache: slots
  that are split over the sequence axis, of which each device reads its own; fewer key heads than
  devices, of which each reads the one of its queries; and the heads of several layers in one cache.
  """
  mesh = sharding.mesh_here()
  name = options.get("implementation") or choice.kernel_here()
  opaque = name not in (None, "xla", "reference")
  if mesh is not None:
    values = bound(arguments, options)
    split = _fitting(values, mesh)
    few = split.heads is not None and values["k"].shape[1] % mesh.shape[split.heads] > 0
    stacked = split.heads is not None and values["first_head"] is not None
    if opaque or few or stacked or split.slots is not None:
      return sharded_attention(*arguments, mesh=mesh, split=split, **options)
  return frontier_attention(*arguments, **options)


def sharded_attention(
  *arguments: Any, mesh: Mesh | AbstractMesh, split: Split = Split(), **options: Any
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Computes `frontier_attention` with its arguments, split over a mesh: equal up to rounding.

  Each device runs the named implementation, or the best for its part, on
    its rows of the batch (`split.rows`);
    its heads (`split.heads`): whole groups of queries with their key head. With fewer key heads
      than devices, a device holds them all and uses the one that its queries read, by a copy if
      there are several;
    its slots (`split.slots`): consecutive ones, an equal part of the capacity; the first shard
      has the fresh entries too. The results are merged by their log-sum-exp: B * T * H * (D + 2)
      float32 are reduced, and no part of the cache is sent. Without a cache nothing is split.

  Pages are whole on every device but for their heads (`Pages.SHARED`), or in as many equal parts
  as there are shards of rows times shards of slots, in that order (`Pages.OWN`). `page_table` names
  pages as it does on one device, but with parts it may name only pages of the row's own part in its
  columns of the table: the output of a row that names another part's page is NaN.

  Raises ValueError that says which axis is not on the mesh or what does not divide.
  """
  values = _of_parts(bound(arguments, options), mesh, split)
  reason = _why_not(values, mesh, split)
  if reason is not None:
    raise ValueError(f"attention on a mesh of {dict(mesh.shape)}: {reason}")
  roles = roles_of(values, mesh, split)
  settings = {name: x for name, x in values.items() if name not in roles}
  heads = None if "h" in roles["k"] else split.heads
  slots = split.slots if values["cache_k"] is not None else None
  page_axes = sharding.page_axes(split) if values["page_table"] is not None else ()

  def on_a_device(arrays):
    if heads is not None:
      arrays = _own_key_head(arrays, heads, mesh.shape[heads])
    if slots is not None:
      arrays = _own_slots(arrays, slots)
    lost = None
    if page_axes:
      arrays, lost = _own_pages(arrays, page_axes)
    out, lse = frontier_attention(**arrays, **settings)
    if lost is not None:
      out = jnp.where(lost[:, None, None, None], jnp.nan, out)
    if slots is None:
      return out, lse
    whole, lse = merged_over(out, lse, slots)
    return whole.astype(out.dtype), lse

  over = sharding.over_heads(
    on_a_device, mesh, in_axes=(roles,), out_axes=("b.h.", "b.h"), split=split
  )
  return over({name: values[name] for name in roles})


def roles_of(values: dict[str, Any], mesh: Mesh | AbstractMesh, split: Split = Split()) -> dict:
  """Returns, for each array among attention's arguments, its placement for `sharding.spec_of`."""
  heads = "." if values["k"].shape[1] % _size(mesh, split.heads) else "h"
  cache = f"b{heads}s" if values.get("page_table") is None else f"p{heads}."
  roles = dict(
    **_ROLES,
    **dict.fromkeys(("k", "v"), f"b{heads}.."),
    **dict.fromkeys(("cache_k", "cache_v"), f"{cache}."),
    kv_scales=(cache, cache),
  )
  return {name: role for name, role in roles.items() if values.get(name) is not None}


def bound(arguments: tuple, options: dict[str, Any]) -> dict[str, Any]:
  """Returns the arguments of `frontier_attention` by name, with its defaults."""
  values = _SIGNATURE.bind(*arguments, **options)
  values.apply_defaults()
  return values.arguments


def _why_not(values, mesh, split: Split) -> str | None:
  """Says why the arrays cannot be split so, or returns None."""
  axes = [axis for axis in split[:3] if axis is not None]
  absent = [axis for axis in axes if axis not in mesh.shape]
  if absent:
    return f"there is no axis {absent[0]!r}"
  if len(set(axes)) < len(axes):
    return f"an axis splits one of rows, heads and slots, not two: {split}"
  rows, heads, slots = (_size(mesh, axis) for axis in split[:3])
  batch, _, queries, _ = values["q"].shape
  keys, cache, table = values["k"].shape[1], values["cache_k"], values["page_table"]
  if batch % rows:
    return f"{batch} rows do not divide over {rows} shards"
  if keys % heads and (heads % keys or queries % heads):
    return f"{queries} query heads in {keys} groups do not divide over {heads} shards"
  if cache is None:
    return None
  if table is None:
    if cache.shape[2] % slots:
      return f"{cache.shape[2]} slots do not divide over {slots} shards"
    return None
  if table.shape[1] % slots:
    return f"the {table.shape[1]} pages of a row do not divide over {slots} shards"
  parts = rows * slots
  if split.pages is Pages.OWN and cache.shape[0] % parts:
    return f"{cache.shape[0]} pages do not divide over {parts} shards: add some, or share them"
  return None


def _of_parts(values: dict[str, Any], mesh, split: Split) -> dict[str, Any]:
  """Returns the arguments, with `first_head` as each device counts heads.

  Where layers run in one scan, the heads of all layers are one axis of the cache, and each part of
  it has the same heads of every layer (`mtjax.models.stacking.over_heads`). Where the axis does not
  divide a layer's heads, the layer's are cut out of the whole cache.
  """
  first, cached = values["first_head"], ("cache_k", "cache_v", "kv_scales")
  if first is None:
    return values
  heads = values["k"].shape[1]
  if heads % _size(mesh, split.heads) == 0:
    return values | dict(first_head=first // _size(mesh, split.heads))

  def cut(x):
    return lax.dynamic_slice_in_dim(x, first, heads, axis=1)

  own = {name: jax.tree.map(cut, values[name]) for name in cached if values[name] is not None}
  return values | own | dict(first_head=None)


def _fitting(values, mesh) -> Split:
  """Returns a split over rows and heads, and over slots of a cache, each only if it divides."""
  split = sharding.CACHE
  absent = mesh.shape.get(split.slots, 1) == 1 or values["cache_k"] is None
  if absent or _why_not(values, mesh, split._replace(rows=None, heads=None)):
    split = Split()
  if _why_not(values, mesh, split._replace(heads=None)):
    split = split._replace(rows=None)
  if _why_not(values, mesh, split._replace(rows=None)):
    split = split._replace(heads=None)
  return split


def _size(mesh, axis: str | None) -> int:
  return 1 if axis is None else mesh.shape[axis]


def _own_key_head(arrays, axis: str, size: int) -> dict:
  """Returns the arguments with only the key head that this device's queries read."""
  heads = arrays["k"].shape[1]
  if heads == 1:
    return arrays
  head = lax.axis_index(axis) * heads // size

  def take(x):
    return lax.dynamic_slice_in_dim(x, head, 1, axis=1)

  local = {name: jax.tree.map(take, arrays[name]) for name in _KEYS if name in arrays}
  return arrays | local


def _own_slots(arrays, axis: str) -> dict:
  """Returns the arguments for this device's slots; only the first device sees fresh entries."""
  index = lax.axis_index(axis)
  size = arrays["cache_k"].shape[2]
  if "page_table" in arrays:
    size *= arrays["page_table"].shape[1]
  local = dict(
    lengths=jnp.clip(arrays["lengths"] - index * size, 0, size),
    hi=jnp.where(index == 0, arrays["hi"], arrays["lo"]),
  )
  if "own" in arrays:
    local["own"] = arrays["own"] & (index == 0)
  return arrays | local


def _own_pages(arrays, axes: tuple[str, ...]) -> tuple[dict, Bool[Array, " B"]]:
  """Returns tables with this device's numbers of pages, and which rows name another's pages."""
  pages, _, size, _ = arrays["cache_k"].shape
  table = arrays["page_table"] - lax.axis_index(axes) * pages
  used = jnp.arange(table.shape[1]) * size < arrays["lengths"][:, None]
  lost = jnp.any(used & ((table < 0) | (table >= pages)), axis=1)
  return arrays | dict(page_table=table), lost
