"""Drafters that live on the host: a Python object called once a round, inside the one program.

A store (a trie, a tokenizer) is not an array: it cannot be a parameter. It is registered, and its
handle, an integer array, is the parameter: one compiled program serves every store.
"""

import itertools
import weakref
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array, Int, PyTree

_STORES: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_NEXT = itertools.count(1)


def register(store: Any) -> Int[Array, ""]:
  """A handle of `store`, which the caller keeps alive."""
  handle = next(_NEXT)
  _STORES[handle] = store
  return jnp.int32(handle)


def alive() -> int:
  """How many stores there are."""
  return len(_STORES)


def call(
  function: Callable[..., PyTree], shapes: PyTree, handle: Int[Array, ""], *arrays: Array
) -> PyTree:
  """function(store, *arrays as numpy) in program order, about 0.1 ms a call on a CPU.

  shapes: what it returns, as jax.ShapeDtypeStruct leaves. It must not call JAX. Needs one process:
  with several hosts each would ask its own store.
  """

  # Every argument costs a transfer, which for small arrays is most of the call: integers go as one.
  kinds = [(x.shape, x.size, x.dtype) for x in arrays]
  whole = [i for i, (*_, kind) in enumerate(kinds) if kind in (jnp.int32, jnp.bool_)]
  packed = jnp.concatenate([handle[None], *(arrays[i].ravel().astype(jnp.int32) for i in whole)])
  others = [x for i, x in enumerate(arrays) if i not in whole]

  def on_host(packed, *others):
    packed, others = np.asarray(packed), iter(others)
    store = _STORES.get(int(packed[0]))
    if store is None:
      raise ValueError("the host store of this drafter is gone: keep it alive while decoding")
    given, begin = [], 1
    for i, (shape, size, kind) in enumerate(kinds):
      if i in whole:
        given.append(packed[begin : begin + size].reshape(shape).astype(kind))
        begin += size
      else:
        given.append(np.asarray(next(others)))
    return function(store, *given)

  return io_callback(on_host, shapes, packed, *others, ordered=True)
