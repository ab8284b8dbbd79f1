"""Layers of one kind in one scan: stacked parameters, so that compilation does not grow with depth.

A model whose config has layer_loop "scanned" computes what the unrolled one does, up to rounding.
Its parameters and its caches are laid out by stacks: see `Stacks`.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PyTree, Shaped

from mtjax.models.config import Layer, TransformerConfig
from mtjax.sharding import CACHE, parts_here


class Stacks(NamedTuple):
  """How layers are stacked: `kinds` layers are a period, which is repeated `count` times.

  Layer i < kinds * count is number i // kinds of stack i % kinds, whose parameters are one subtree
  `stack_0`, ..., each leaf [count, ...]. A stack has one cache, with the key heads of its layers in
  the order of `over_heads`: [B, count * G, S, D]. The layers after the last whole period are not
  stacked, and their caches follow. Llama has one kind; a Gemma 3 of 26 layers has 6 (five windows,
  then none) 4 times, and 2 layers after them. Without stacks the count is 0.
  """

  kinds: int
  count: int

  @classmethod
  def of(cls, config: Any) -> "Stacks":
    """Returns the stacks of a model's config; none unless its layer_loop is "scanned"."""
    scans = getattr(config, "layer_loop", "unrolled") == "scanned"
    return cls.of_layers(config.layers) if scans else UNSTACKED

  @classmethod
  def of_layers(cls, layers: tuple[Layer, ...]) -> "Stacks":
    """Returns the shortest period that repeats, or no stacks if none does."""
    for kinds in range(1, len(layers) // 2 + 1):
      count = len(layers) // kinds
      if layers == (layers[:kinds] * (count + 1))[: len(layers)]:
        return cls(kinds, count)
    return UNSTACKED

  @property
  def layers(self) -> int:
    """The number of layers that are stacked."""
    return self.kinds * self.count


UNSTACKED = Stacks(kinds=1, count=0)
# A period apart is compiled a second time; in a deep model it is too small a share of the work.
_FEW_LAYERS = 8


class OfLayer(struct.PyTreeNode):
  """One layer's part of a stacked array, which is not cut out: what reads it takes the index."""

  stacked: Shaped[Array, "N ..."]
  index: Int[Array, ""]


def is_last_period_apart(
  c: TransformerConfig, stacks: Stacks, size: int, rows: Int[Array, "B R"] | None
) -> bool:
  """Returns whether the last period is computed after the scan, its last MLP for `rows` only.

  That pays for masked models, which run such passes for every token they decide; a causal model
  does for its prompt only.
  """
  if rows is None or rows.shape[1] >= size or stacks.layers < len(c.layers):
    return False
  return c.predicts == "masked" and len(c.layers) <= _FEW_LAYERS and stacks.kinds <= 2


def stack_name(kind: int) -> str:
  return f"stack_{kind}"


def scannable(config: Any) -> bool:
  """Returns whether some layers can be stacked: a transformer of repeated kinds, without exits."""
  if not isinstance(config, TransformerConfig) or config.exits:
    return False
  return Stacks.of_layers(config.layers).count > 1


def scanned(config: Any) -> Any:
  """Returns the same model with stacked layers. Raises ValueError for a model with exits."""
  return dataclasses.replace(config, layer_loop="scanned")


def unrolled(config: Any) -> Any:
  """Returns the same model with every layer by itself."""
  if getattr(config, "layer_loop", "unrolled") == "unrolled":
    return config
  return dataclasses.replace(config, layer_loop="unrolled")


def stack_params(params: PyTree, stacks: Stacks) -> PyTree:
  """Returns the parameters of the unrolled model in stacks; those of the other layers stay."""
  if not stacks.count:
    return params
  params = dict(params)
  layers = [params.pop(f"layer_{index}") for index in range(stacks.layers)]
  for kind in range(stacks.kinds):
    params[stack_name(kind)] = jax.tree.map(lambda *x: jnp.stack(x), *layers[kind :: stacks.kinds])
  return params


def unstack_params(params: PyTree, stacks: Stacks) -> PyTree:
  """Returns the parameters of the unrolled model: the inverse of `stack_params`."""
  params = dict(params)
  for kind in range(stacks.kinds if stacks.count else 0):
    stack = params.pop(stack_name(kind), None)
    for number in range(stacks.count if stack is not None else 0):
      layer = jax.tree.map(lambda x, n=number: x[n], stack)
      params[f"layer_{number * stacks.kinds + kind}"] = layer
  return params


def of_layer(stack: PyTree, index: Int[Array, ""]) -> PyTree:
  """Returns the parameters of layer `index` of a stack; packed weights are not cut out."""

  def walk(node):
    if not isinstance(node, dict):
      return jax.lax.dynamic_index_in_dim(node, index, keepdims=False)
    whole = ("packed", "scale") if "packed" in node else ()
    return {key: OfLayer(x, index) if key in whole else walk(x) for key, x in node.items()}

  return walk(stack)


def over_heads(x: Shaped[Array, "N B G T D"]) -> Shaped[Array, "B M T D"]:
  """Returns the heads of all layers of a stack beside each other, as its cache has them.

  The order is by part (`head_parts`), by layer, and by head within the part, so that a device has
  its own heads of each layer at index layer * G / parts. With one part it is by layer, then head.
  """
  N, B, G, T, D = x.shape
  parts = head_parts(G)
  split = x.reshape(N, B, parts, G // parts, T, D)
  return split.transpose(1, 2, 0, 3, 4, 5).reshape(B, N * G, T, D)


def head_parts(heads: int) -> int:
  """Returns in how many parts the mesh of `jax.set_mesh` splits the key heads of a layer.

  1 without a mesh, and where its model axis does not divide them.
  """
  parts = parts_here("h", CACHE)
  return 1 if heads % parts else parts
