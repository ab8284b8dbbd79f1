"""Work many times inside one compiled loop, so that starting it is not what is timed.

What a body reads is carried through the loop and changed a little every time, so that nothing is
computed once for all iterations; what it gives is carried too, so that nothing is left out.
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
  """Zero, but only those who know that x is finite know it."""
  return x.reshape(-1)[0].astype(jnp.float32) * 0.0


def stirred(tree: PyTree, zero: Float[Array, ""]) -> PyTree:
  """Adds `zero`: to all of what are integers, to one number, in place, of what are not."""
  flag = zero != 0

  def one(x):
    if x.dtype == bool:
      return x ^ flag
    if jnp.issubdtype(x.dtype, jnp.integer):
      return x + flag.astype(x.dtype)
    return x.at[(0,) * x.ndim].add(zero.astype(x.dtype))

  return jax.tree.map(one, tree)
