"""Parameter transforms for inference: fewer bytes per token, the same forward pass.

The time of decoding is that of reading the weights once per token, so fewer bytes make it faster.
`to_int8` changes the target model; `pack` never does.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from mtjax.models.model import Params
from mtjax.native.packed_weights import pack_weights, quantize_int8


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


def pack(params: Params, *, narrowest: Any = jnp.bfloat16) -> Params:
  """Returns the same model, packed for decoding on a CPU (see mtjax.native), and for nothing else.

  Kernels become packed weights; a tied head gets its own beside the embedding. float32 weights that
  bfloat16 represents exactly are stored so: half the bytes, the same products in float32
  (narrowest=float32: never). int8 stays int8. Packed parameters have no gradient and cannot be
  exported.
  """

  def narrow(weights):
    half = weights.astype(narrowest)
    return half if bool(jnp.all(half.astype(weights.dtype) == weights)) else weights

  def linear(node):
    if "int8" in node:
      rest = _replace(node, "int8", packed=pack_weights(node["int8"]))
      return rest
    return _replace(node, "kernel", packed=pack_weights(narrow(node["kernel"])))

  def embedding(node):
    return node if "int8" in node else dict(table=narrow(node["table"]))

  packed = _transform(params, linear, embedding)
  if "head" not in params:
    table = packed["embedding"]
    if "int8" in table:
      head = dict(packed=pack_weights(table["int8"].T), scale=table["scale"])
    else:
      head = dict(packed=pack_weights(table["table"].T))
    packed = dict(packed, head=head)
  return packed


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
