"""Parameter transforms for inference: fewer bytes per token, the same forward pass.

The time of decoding is that of reading the weights once per token, so fewer bytes make it faster.
`to_int8` changes the target model; `pack` never does.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from mtjax.models.model import Params
from mtjax.models.stacking import UNSTACKED, Stacks, stack_name
from mtjax.native.packed_weights import (
  bits_of,
  holds_exactly,
  pack_stack,
  pack_weights,
  quantize_int8,
)


def to_int8(params: Params) -> Params:
  """Returns int8 weights per output channel: kernels [K, N] by column, embedding [V, D] by row.

  Norms, biases, learned positions and extra embeddings stay as they are. The result is another
  target model: decoders stay exact with respect to it, not to the original one. Any parameters of
  `Model` are allowed; weights that are int8 already stay as they are.
  """

  def linear(node):
    if "kernel" not in node:
      return node
    values, scale = quantize_int8(node["kernel"])
    return _replace(node, "kernel", int8=values, scale=scale)

  def embedding(node):
    if "table" not in node:
      return node
    values, scale = quantize_int8(node["table"].T)
    return dict(int8=values.T, scale=scale)

  return _transform(params, linear, embedding)


def dequantize(params: Params) -> Params:
  """Returns the float32 parameters that an int8 tree represents: the target of int8 decoding."""

  def linear(node):
    if "int8" not in node:
      return node
    kernel = node["int8"].astype(jnp.float32) * node["scale"]
    return {key: v for key, v in _replace(node, "int8", kernel=kernel).items() if key != "scale"}

  def embedding(node):
    if "int8" not in node:
      return node
    return dict(table=node["int8"].astype(jnp.float32) * node["scale"][:, None])

  return _transform(params, linear, embedding)


def pack(params: Params, stacks: Stacks = UNSTACKED, *, narrowest: Any = jnp.bfloat16) -> Params:
  """Returns the same model, packed for decoding on a CPU (see mtjax.native), and for nothing else.

  Kernels become packed weights; a tied head gets its own beside the embedding. float32 weights that
  bfloat16 represents exactly are stored so: half the bytes, the same products in float32
  (narrowest=float32: never); float16 weights that it does not are stored as float32. int8 stays
  int8, and the native product rounds what meets it (`mtjax.native.packed_matmul`). With `stacks`,
  params are those of an unrolled model, and the result is that of the scanned one
  (`mtjax.models.stacking`). Packed parameters have no gradient and cannot be exported.
  """
  layers = {f"layer_{index}" for index in range(stacks.layers)}
  packed = {
    name: _packed([node], name, narrowest) for name, node in params.items() if name not in layers
  }
  for kind in range(stacks.kinds if layers else 0):
    alike = [params[f"layer_{index}"] for index in range(kind, stacks.layers, stacks.kinds)]
    packed[stack_name(kind)] = _packed(alike, "", narrowest, in_stack=True)
  if "head" not in params:
    table = params["embedding"]
    if "int8" in table:
      packed["head"] = dict(packed=pack_weights(np.asarray(table["int8"]).T), scale=table["scale"])
    else:
      kernel = np.asarray(table["table"]).T
      packed["head"] = dict(packed=pack_weights(kernel, _narrow([kernel], narrowest)))
  return packed


def is_packed(params: Params) -> bool:
  """Returns whether `pack` made these parameters."""
  return "packed" in params.get("head", {})


def _packed(nodes: list, name: str, narrowest, *, in_stack: bool = False):
  """Returns one subtree for the same subtree of several layers, or of one that is not stacked."""
  first = nodes[0]
  if not isinstance(first, dict):
    return jnp.asarray(np.stack([np.asarray(x) for x in nodes])) if in_stack else first
  if name == "embedding":
    if "int8" in first:
      return first
    table = np.asarray(first["table"])
    if not holds_exactly(narrowest, table):
      return first
    return dict(table=jnp.asarray(bits_of(table, np.dtype(narrowest)).view(narrowest)))
  weights = next((key for key in ("kernel", "int8") if key in first), None)
  out = {
    key: _packed([node[key] for node in nodes], key, narrowest, in_stack=in_stack)
    for key in first
    if key != weights
  }
  if weights is not None:
    kernels = [np.asarray(node[weights]) for node in nodes]
    dtype = _narrow(kernels, narrowest)
    out["packed"] = pack_stack(kernels, dtype) if in_stack else pack_weights(kernels[0], dtype)
  return out


def _narrow(kernels: list[np.ndarray], narrowest) -> np.dtype:
  dtype = kernels[0].dtype
  if dtype == np.int8:
    return dtype
  exact = all(holds_exactly(narrowest, kernel) for kernel in kernels)
  return np.dtype(narrowest if exact else jnp.float32)


def _replace(node: dict, old: str, **new) -> dict:
  return {**{key: value for key, value in node.items() if key != old}, **new}


def _transform(params: Params, linear: Callable, embedding: Callable) -> Params:
  def walk(name, node):
    if not isinstance(node, dict):
      return node
    if name == "embedding":
      return embedding(node)
    if "kernel" in node or "int8" in node:
      return linear(node)
    return {key: walk(key, value) for key, value in node.items()}

  return walk("", params)
