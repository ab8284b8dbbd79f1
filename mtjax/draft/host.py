"""Drafters that live on the host: a Python object called once per round, inside the one program.

A store (a trie, a tokenizer) is not an array: it cannot be a parameter. It is registered, and its
handle, an integer array, is the parameter: one compiled program serves every store.
"""

import itertools
import weakref
from collections.abc import Callable
from typing import Any, SupportsInt

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jax.experimental.buffer_callback import buffer_callback
from jaxtyping import Array, Int, PyTree

from mtjax.sharding import mesh_here, place

_STORES: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_NEXT = itertools.count(1)


def register(store: Any) -> Int[Array, ""]:
  """Returns a handle of `store`, which the caller keeps alive."""
  handle = next(_NEXT)
  _STORES[handle] = store
  return jnp.int32(handle)


def alive() -> int:
  """Returns the number of registered stores that are alive."""
  return len(_STORES)


def call(
  function: Callable[..., PyTree], shapes: PyTree, handle: Int[Array, ""], *arrays: Array
) -> PyTree:
  """Returns function(store, *arrays as numpy).

  Takes a few microseconds per call where a CPU is the only device.

  shapes: what `function` returns, as jax.ShapeDtypeStruct leaves. It must not call JAX, nor keep
  its arrays. Calls whose order matters must depend on each other's results. Raises ValueError if
  the store is gone, and, when it is traced, for a mesh with devices of several processes: each
  would have a store of its own.
  """
  mesh = mesh_here()
  if mesh is not None and mesh.size > jax.local_device_count():
    raise ValueError(
      "this method keeps something on the host, as the drafters trie, suffix and cross_vocabulary "
      f"and an audit do, and the mesh has devices of {jax.process_count()} processes, of which "
      "each would keep its own: choose a method that is on the devices alone, such as lookup or "
      "draft, or leave --distributed out"
    )
  # A program of several devices cannot say which of them makes a call of the first kind.
  if jax.default_backend() == "cpu" and jax.device_count() == 1:
    return _call_here(function, shapes, handle, *arrays)
  return _call_from_device(function, shapes, handle, *arrays)


def get_store(handle: SupportsInt) -> Any:
  """Returns the store of a handle. Raises ValueError if nobody has kept it alive."""
  store = _STORES.get(int(handle))
  if store is None:
    raise ValueError("the host store of this drafter is gone: keep it alive while decoding")
  return store


def _call_here(function, shapes, handle, *arrays):
  """Reads the arrays and writes the results in place, without copies."""

  def on_host(_, out, handle, *arrays):
    results = function(get_store(np.asarray(handle)), *map(np.asarray, arrays))
    jax.tree.map(lambda buffer, x: np.copyto(np.asarray(buffer), x), out, results)

  return buffer_callback(on_host, shapes, has_side_effect=True)(handle, *arrays)


def _call_from_device(function, shapes, handle, *arrays):
  # Every argument costs a transfer, which for small arrays is most of the call: integers go as one.
  kinds = [(x.shape, x.size, x.dtype) for x in arrays]
  whole = [i for i, (*_, kind) in enumerate(kinds) if kind in (jnp.int32, jnp.bool_)]
  packed = jnp.concatenate([handle[None], *(arrays[i].ravel().astype(jnp.int32) for i in whole)])
  others = [x for i, x in enumerate(arrays) if i not in whole]

  def on_host(packed, *others):
    packed, others = np.asarray(packed), iter(others)
    arguments, begin = [], 1
    for i, (shape, size, kind) in enumerate(kinds):
      if i in whole:
        arguments.append(packed[begin : begin + size].reshape(shape).astype(kind))
        begin += size
      else:
        arguments.append(np.asarray(next(others)))
    return function(get_store(packed[0]), *arguments)

  # One device makes the call: what it takes and returns is whole on each, or XLA says it copies it.
  results = io_callback(on_host, shapes, *map(_whole, (packed, *others)), ordered=True)
  return jax.tree.map(_whole, results)


def _whole(x: Array) -> Array:
  return place(x, "." * x.ndim)
