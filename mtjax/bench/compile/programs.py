"""The programs to compile: attention as it is called, and programs that a check must notice."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kernels_pallas.frontier_attention import frontier_attention
from mtjax import sharding
from mtjax.bench.compile.shapes import CompiledShape


class CompiledProgram(NamedTuple):
  function: Callable[..., Any]
  arguments: tuple  # trees of jax.ShapeDtypeStruct


def attention(shape: CompiledShape, platform: str, mesh: Mesh | None = None) -> CompiledProgram:
  """Returns frontier_attention with the platform's kernel; for training, with its gradient."""
  del mesh
  arrays, attend = _attention(shape, platform)
  if not shape.gradient:
    return CompiledProgram(attend, (arrays,))

  def loss(qkv, arrays):
    out, lse = attend(arrays | qkv)
    return jnp.sum(jnp.square(out.astype(jnp.float32))) + jnp.sum(lse)

  rest = {name: x for name, x in arrays.items() if name not in "qkv"}
  return CompiledProgram(jax.grad(loss), ({name: arrays[name] for name in "qkv"}, rest))


def slots_first(shape: CompiledShape, platform: str, mesh: Mesh | None = None) -> CompiledProgram:
  """Returns a program that transposes the cache for the kernel, which copies all of it."""
  del mesh
  arrays, attend = _attention(shape, platform)

  def turned(x):
    B, G, S, D = x.shape
    return jax.ShapeDtypeStruct((B, S, G, D), x.dtype)

  names = ("cache_k", "cache_v")

  def function(arrays):
    return attend(arrays | {name: arrays[name].swapaxes(1, 2) for name in names})

  return CompiledProgram(function, (arrays | {name: turned(arrays[name]) for name in names},))


def layer(shape: CompiledShape, platform: str, mesh: Mesh | None = None) -> CompiledProgram:
  """Returns attention split over heads and rows of a mesh, and the output projection over heads."""
  if mesh is None:
    raise ValueError("a layer on several chips needs a mesh")
  arrays, attend = _attention(shape, platform)
  roles = {name: _ROLES[name] for name in arrays}
  spread = sharding.over_heads(attend, mesh, in_axes=(roles,), out_axes=("b.h.", "b.h"))

  def function(arrays, kernel):
    out, _ = spread(arrays)
    projected = out.reshape(*out.shape[:2], -1) @ kernel
    return jax.lax.with_sharding_constraint(projected, NamedSharding(mesh, P(sharding.DATA)))

  names = {"b": sharding.DATA, "h": sharding.MODEL, ".": None}

  def placed(x, roles):
    where = NamedSharding(mesh, P(*(names[role] for role in roles)))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

  width = shape.heads * shape.width
  kernel = placed(jax.ShapeDtypeStruct((width, width), jnp.dtype(shape.dtype)), "h.")
  return CompiledProgram(function, (jax.tree.map(placed, arrays, roles), kernel))


PROGRAMS: Mapping[str, Callable[..., CompiledProgram]] = {
  "attention": attention,
  "slots first": slots_first,
  "layer": layer,
}

# The arguments of a cache in pages, which all rows share.
_ROLES = {
  "q": "b.h.",
  "k": "bh..",
  "v": "bh..",
  "stamp": "b..",
  "lo": "b..",
  "hi": "b..",
  "cache_k": ".h..",
  "cache_v": ".h..",
  "lengths": "b",
  "page_table": "b.",
}


def _attention(shape: CompiledShape, platform: str):
  """Returns (the arguments that are arrays, frontier_attention as a function of them)."""
  arguments = shape.arguments()
  arrays = {name: x for name, x in arguments.items() if x is not None}
  rest: dict[str, Any] = {name: None for name in arguments if name not in arrays}
  rest |= dict(window=shape.window, implementation=platform)
  return arrays, lambda arrays: frontier_attention(**arrays, **rest)
