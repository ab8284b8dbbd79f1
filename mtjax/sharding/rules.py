"""Shardings of parameters by their paths, and of training states like their parameters."""

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from mtjax import hosts
from mtjax.sharding.mesh import MODEL, describe_mesh, fitting

Rules = Sequence[tuple[str, P]]

# Patterns for a parameter's path within its model, such as layer_0/attention/qkv/kernel. They match
# at the start of the path or after a slash; the first match wins.
#
# qkv columns are laid out by key/value head (its queries, its key, its value), so equal parts of
# axis 1 are whole groups of heads when the model axis divides kv_heads; where it does not, XLA
# moves what it must. gate_up is [D, 2F], gate then up, so a part of axis 1 holds columns of one of
# them: each layer moves its activations of gate and of up to where their products are computed. On
# n devices (n even, at least 4) these are four collective-permutes, together of 5 F / n numbers per
# token, which docs/pods.md counts. That is less than the all-reduce for a split of D.
# An adapter beside a map that is split by columns has its second factor split, and its first one
# beside a map that is split by rows. Experts are split by whole experts.
RULES: Rules = (
  (r"embedding/(table|int8)$", P(MODEL, None)),
  (r"embedding/scale$", P(MODEL)),
  (r"(positions|extra|target)/table$", P()),
  (r"modulation/(kernel|int8|bias|scale)$", P()),
  (r"(attention/qkv|mlp/gate_up|mlp/up|head)/(kernel|int8|lora_b)$", P(None, MODEL)),
  (r"(attention/qkv|mlp/gate_up|mlp/up|head)/(bias|scale)$", P(MODEL)),
  (r"(attention/out|mlp/down)/(kernel|int8|lora_a)$", P(MODEL, None)),
  (r"(attention/out|mlp/down)/(bias|scale)$", P()),
  (r"attention/(q|k|v)/(kernel|int8|lora_b)$", P(None, MODEL)),
  (r"attention/(q|k|v)/scale$", P(MODEL)),
  (r"experts/(gate_up|down)$", P(MODEL, None)),
  (r"router/(scale|expert_scale|proj/(kernel|int8|scale))$", P()),
  (r"layer_\d+/(clean|canvas)_scale$", P()),
  (r"\w*norm/(weight|bias)$", P()),
  (r"attention/relative$", P(None, MODEL)),
  (r"attention/(content|position|segment)_bias$", P(MODEL, None)),
  (r"(attention/segments|logit_bias)$", P()),
  (r"lora_[ab]$", P()),
)

# Arrays of a training state that belong to no parameter, and are whole on every device.
STATE_RULES: Rules = ((r"seed$", P()), (r"ns_coeffs$", P()))


def spec(path: str, rules: Rules = RULES) -> P:
  """Returns the PartitionSpec of a parameter by its path.

  A stack of layers is not split over its first axis, which numbers the layers. Raises ValueError
  when no rule matches.
  """
  partition = _first_match(path, rules)
  if partition is None:
    raise ValueError(
      f"no sharding rule matches parameter {path!r}; add one to mtjax.sharding.RULES"
    )
  return P(None, *partition) if _STACKED.search(path) else partition


def param_shardings(params: PyTree, mesh: Mesh | AbstractMesh, rules: Rules = RULES) -> PyTree:
  """Returns NamedShardings for a parameter dict (arrays or ShapeDtypeStructs).

  An axis that the mesh does not divide evenly stays whole on every device, which is correct and
  best for small models. Raises ValueError for a path without a rule.
  """

  def sharding(path, leaf):
    return NamedSharding(mesh, fitting(spec(_name(path), rules), leaf.shape, mesh))

  return jax.tree_util.tree_map_with_path(sharding, params)


def state_shardings(state: PyTree, params: PyTree, mesh: Mesh, rules: Rules = RULES) -> PyTree:
  """Returns NamedShardings for a training state: a moment is sharded like its parameter.

  A leaf is a moment if its path ends in a parameter's path and it has that parameter's shape. Every
  other leaf is a scalar, or one of STATE_RULES. Raises ValueError for an array that is neither.
  """
  flat = jax.tree_util.tree_leaves_with_path(params)
  known = {_name(path): (leaf.shape, spec(_name(path), rules)) for path, leaf in flat}

  def sharding(path, leaf):
    parts = _name(path).split("/")
    for first in range(len(parts)):
      shape, partition = known.get("/".join(parts[first:]), (None, P()))
      if shape == leaf.shape:
        return NamedSharding(mesh, fitting(partition, leaf.shape, mesh))
    partition = P() if leaf.ndim == 0 else _first_match("/".join(parts), STATE_RULES)
    if partition is None:
      raise ValueError(
        f"no sharding rule matches {'/'.join(parts)!r} of the training state: its shape, "
        f"{leaf.shape}, is that of no parameter at the end of its path; add a rule to "
        "mtjax.sharding.STATE_RULES"
      )
    return NamedSharding(mesh, partition)

  return jax.tree_util.tree_map_with_path(sharding, state)


def undivided(params: PyTree, mesh: Mesh | AbstractMesh, rules: Rules = RULES) -> list[str]:
  """Returns the paths of parameters that stay whole, because the mesh does not divide them."""

  def stays(path, leaf) -> bool:
    partition = spec(_name(path), rules)
    axes = [name for name in partition if name is not None and mesh.shape[name] > 1]
    return bool(axes) and not any(fitting(partition, leaf.shape, mesh))

  flat = jax.tree_util.tree_leaves_with_path(params)
  return [_name(path) for path, leaf in flat if stays(path, leaf)]


def undivided_note(params: PyTree, mesh: Mesh | AbstractMesh, rules: Rules = RULES) -> str | None:
  """Returns a sentence that names what `undivided` does, for a user to read once, or None."""
  names = undivided(params, mesh, rules)
  if not names:
    return None
  # Layers are alike: each name is said once.
  kinds = list(dict.fromkeys(_LAYER.sub("", name) for name in names))
  return (
    f"the mesh {describe_mesh(mesh)} does not divide {len(names)} arrays of the model, which are "
    f"whole on every device: {', '.join(kinds)}"
  )


def heads_note(model: str, heads: int, mesh: Mesh | AbstractMesh) -> str | None:
  """Returns a sentence about key/value heads that the model axis does not divide, or None.

  `model` is a phrase that names whose heads they are, such as "the draft model". Columns of weights
  may divide where whole heads do not, so `undivided_note` says nothing about them.
  """
  devices = mesh.shape.get(MODEL, 1)
  if heads % devices == 0:
    return None
  return (
    f"{heads} key/value heads do not divide over the {devices} devices of the axis {MODEL!r}: each "
    f"device keeps the keys and values of all heads of {model}"
  )


def shard_params(params: PyTree, mesh: Mesh, rules: Rules = RULES) -> PyTree:
  """Returns the parameters on the devices of the mesh, each sharded by its rule."""
  return hosts.put(params, param_shardings(params, mesh, rules))


def put_known(tree: PyTree, mesh: Mesh, rules: Rules = RULES) -> PyTree:
  """Returns any arrays on the devices of the mesh: parameters by their rules, all others whole."""

  def sharding(path, leaf):
    try:
      partition = spec(_name(path), rules)
    except ValueError:
      partition = P()
    shape = jnp.shape(leaf)
    fits = len(partition) <= len(shape)
    return NamedSharding(mesh, fitting(partition if fits else P(), shape, mesh))

  return hosts.put(tree, jax.tree_util.tree_map_with_path(sharding, tree))


_LAYER = re.compile(r"^(layer|stack)_\d+/")
_STACKED = re.compile(r"(^|/)stack_\d+/")


def _first_match(path: str, rules: Rules) -> P | None:
  return next((spec for pattern, spec in rules if re.search(rf"(^|/){pattern}", path)), None)


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")
