"""The mesh, shardings of parameters by their paths, and kernels on a mesh.

This is the only file that names mesh axes. They are of Auto type: XLA propagates shardings (GSPMD),
and a spec never changes a result, only where it is computed. Models, decoders and losses do not
know of meshes.
"""

import enum
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

DATA, MODEL = "data", "model"

Rules = Sequence[tuple[str, P]]

# Patterns for a parameter's path within its model, such as layer_0/attention/qkv/kernel. They match
# at the start of the path or after a slash; the first match wins.
#
# qkv columns are laid out by key/value head (its queries, its key, its value), so equal parts of
# axis 1 are whole groups of heads when the model axis divides kv_heads; where it does not, XLA
# moves what it must. gate_up is [D, 2F], gate then up, so a part of axis 1 holds columns of one of
# them: XLA moves one of the halves (which costs less than the all-reduce for a split of D).
RULES: Rules = (
  (r"embedding/(table|int8)$", P(MODEL, None)),
  (r"embedding/scale$", P(MODEL)),
  (r"(positions|extra|target)/table$", P()),
  (r"modulation/(kernel|int8|bias|scale)$", P()),
  (r"(attention/qkv|mlp/gate_up|mlp/up|head)/(kernel|int8)$", P(None, MODEL)),
  (r"(attention/qkv|mlp/gate_up|mlp/up|head)/(bias|scale)$", P(MODEL)),
  (r"(attention/out|mlp/down)/(kernel|int8)$", P(MODEL, None)),
  (r"(attention/out|mlp/down)/(bias|scale)$", P()),
  (r"attention/(q|k|v)/(kernel|int8)$", P(None, MODEL)),
  (r"attention/(q|k|v)/scale$", P(MODEL)),
  (r"experts/(gate_up|down)$", P()),
  (r"router/(scale|expert_scale|proj/(kernel|int8|scale))$", P()),
  (r"layer_\d+/(clean|canvas)_scale$", P()),
  (r"\w*norm/(weight|bias)$", P()),
  (r"attention/relative$", P(None, MODEL)),
  (r"attention/(content|position|segment)_bias$", P(MODEL, None)),
  (r"(attention/segments|logit_bias)$", P()),
  (r"lora_[ab]$", P()),
)


def make_mesh(data: int = 1, model: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
  """Returns a data x model mesh with Auto axes, of the first data * model devices.

  Raises ValueError when there are fewer devices, and for a size below 1.
  """
  if data < 1 or model < 1:
    raise ValueError(f"mesh sizes must be at least 1, got data {data}, model {model}")
  devices = jax.devices() if devices is None else devices
  if data * model > len(devices):
    raise ValueError(
      f"a {data} x {model} mesh needs {data * model} devices, but there are {len(devices)}"
    )
  return jax.make_mesh(
    (data, model),
    (DATA, MODEL),
    axis_types=(AxisType.Auto,) * 2,
    devices=devices[: data * model],
  )


def spec(path: str, rules: Rules = RULES) -> P:
  """Returns the PartitionSpec of a parameter by its path.

  Raises ValueError when no rule matches.
  """
  for pattern, partition in rules:
    if re.search(rf"(^|/){pattern}", path):
      return partition
  raise ValueError(f"no sharding rule matches parameter {path!r}; add one to mtjax.sharding.RULES")


def param_shardings(params: PyTree, mesh: Mesh, rules: Rules = RULES) -> PyTree:
  """Returns NamedShardings for a parameter dict (arrays or ShapeDtypeStructs).

  An axis that the mesh does not divide evenly stays whole on every device, which is correct and
  best for small models. Raises ValueError for a path without a rule.
  """

  def sharding(path, leaf):
    return NamedSharding(mesh, _fitting(spec(_name(path), rules), leaf.shape, mesh))

  return jax.tree_util.tree_map_with_path(sharding, params)


def state_shardings(state: PyTree, params: PyTree, mesh: Mesh, rules: Rules = RULES) -> PyTree:
  """Returns NamedShardings for a training state: a moment is sharded like its parameter.

  A leaf is a moment if its path ends in a parameter's path and it has that parameter's shape;
  every other leaf (counts, seeds) is whole on every device.
  """
  flat = jax.tree_util.tree_leaves_with_path(params)
  known = {_name(path): (leaf.shape, spec(_name(path), rules)) for path, leaf in flat}

  def sharding(path, leaf):
    parts = _name(path).split("/")
    for first in range(len(parts)):
      shape, partition = known.get("/".join(parts[first:]), (None, P()))
      if shape == leaf.shape:
        return NamedSharding(mesh, _fitting(partition, leaf.shape, mesh))
    return NamedSharding(mesh, P())

  return jax.tree_util.tree_map_with_path(sharding, state)


def shard_params(params: PyTree, mesh: Mesh, rules: Rules = RULES) -> PyTree:
  """Returns the parameters on the devices of the mesh, each sharded by its rule."""
  return jax.device_put(params, param_shardings(params, mesh, rules))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of rows of a batch over the data axis, the same on every model shard."""
  return NamedSharding(mesh, P(DATA))


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
  """Returns host arrays [B, ...] as global arrays.

  Raises ValueError when the data axis does not divide B.
  """
  sharding = batch_sharding(mesh)

  def put(leaf):
    leaf = np.asarray(leaf)
    check_rows(leaf.shape[0], mesh)
    return jax.device_put(leaf, sharding)

  return jax.tree.map(put, batch)


def check_rows(rows: int, mesh: Mesh) -> None:
  """Raises ValueError when the data axis does not divide `rows`."""
  if rows % mesh.shape[DATA]:
    raise ValueError(f"a batch of {rows} rows does not divide over {mesh.shape[DATA]} data shards")


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


LONG_ROWS = Split(rows=None, slots=DATA)
FEW_KEY_HEADS = Split(heads=None, slots=MODEL)


def spec_of(roles: str, split: Split = Split()) -> P:
  """Returns the PartitionSpec of an array whose dimensions are named by one letter each.

  The letters: "b" rows, "h" heads, "s" slots, "p" pages, "." not split. The keys of a cache are
  "bhs.".
  """
  names = dict(b=split.rows, h=split.heads, s=split.slots, p=page_axes(split) or None)
  return P(*(names.get(role) for role in roles))


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


def _fitting(partition: P, shape: tuple[int, ...], mesh: Mesh) -> P:
  if len(partition) > len(shape):
    raise ValueError(f"the spec {partition} has more dimensions than an array of shape {shape}")
  sizes = zip(partition, shape, strict=False)
  return P(*(n if n is not None and size % mesh.shape[n] == 0 else None for n, size in sizes))


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")
