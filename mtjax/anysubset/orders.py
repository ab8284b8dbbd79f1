"""Orders of a canvas: the rank of every entry. Given entries have rank 0, asked ones 1, 2, ..."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from mtjax.anysubset.canvas import Canvas


def lattice(canvas: Canvas) -> Int[Array, "B L"]:
  """The one order of a subset: asked entries from left to right (2504.20456, sec. 4).

  Of the L! orders of a text only those count in which every subset's own order is ascending: a
  lattice of 2^L subsets, and every conditional of it is learned from exactly one side.
  """
  return jnp.cumsum(canvas.asked, axis=1, dtype=jnp.int32) * canvas.asked
