"""A conditional that copies nothing."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

T = TypeVar("T")


def once(go: Bool[Array, ""], step: Callable[[T], T], value: T) -> T:
  """Returns step(value) where `go`, else the value: a conditional that copies nothing.

  It is a loop of at most one turn. What passes through a conditional is copied by XLA, the caches
  of all drafters among it; what is carried by a loop stays where it is.
  """
  return jax.lax.while_loop(
    lambda carry: carry[0], lambda carry: (jnp.zeros((), bool), step(carry[1])), (go, value)
  )[1]
