"""Repeats work inside one compiled loop, so that its start is not timed.

The inputs of a body are carried through the loop and changed a little every time, so that nothing
is computed once for all iterations; its results are carried too, so that nothing is left out.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def repeated(body: Callable[..., PyTree]) -> Callable[..., PyTree]:
  """(count, carry, *arguments) -> carry after `count` times carry = body(carry, *arguments)."""

  def loop(count, carry, *arguments):
    return jax.lax.fori_loop(0, count, lambda _, carry: body(carry, *arguments), carry)

  return loop


def nothing(x: Array) -> Float[Array, ""]:
  """Returns a zero that a compiler cannot recognise, as it does not know that x is finite."""
  return x.reshape(-1)[0].astype(jnp.float32) * 0.0


def stirred(tree: PyTree, zero: Float[Array, ""]) -> PyTree:
  """Adds `zero` to all elements of integer arrays, and to one element of others, in place."""
  flag = zero != 0

  def one(x):
    if x.dtype == bool:
      return x ^ flag
    if jnp.issubdtype(x.dtype, jnp.integer):
      return x + flag.astype(x.dtype)
    return x.at[(0,) * x.ndim].add(zero.astype(x.dtype))

  return jax.tree.map(one, tree)
