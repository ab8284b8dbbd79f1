"""Positions far from each other in turn, along the Halton sequence."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.rule import rule
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class Halton(StatelessOrder):
  """Scores are the negative bits of a position's place in its block, read backwards.

  The Halton sequence of base 2 in one dimension (2503.17076 has it in two, for images): of 8
  positions 0, 4, 2, 6, 1, 5, 3, 7. Any n that follow each other are about 1 / n of the block apart,
  so that tokens of one pass depend little on each other. One position per pass samples the product
  of the network's conditionals in this order.
  """

  exactness = Exactness.LOSSLESS

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    offset = view.offset
    bits = max(1, (offset.shape[1] - 1).bit_length())
    backwards = jnp.zeros_like(offset)
    for bit in range(bits):
      backwards += ((offset >> bit) & 1) << (bits - 1 - bit)
    return -backwards.astype(view.scored.dtype)
