"""Positions of a coarse grid first, and then those of finer and finer ones."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import AnyOrderTransfer
from mtjax.diffusion.rule import rule, size_field
from mtjax.diffusion.transfer.llada_counts import INDEPENDENT
from mtjax.diffusion.view import View
from mtjax.types import Exactness


@rule
class Dilated(AnyOrderTransfer):
  """Pass i of a block of B positions decides every (B // base**i)-th one that is still masked.

  The dilated scheduler DUS (2506.19037): i counts from 1, so that a block of 32 has passes of 2, 2,
  4, 8 and 16 positions, whatever the order's scores are: about log B passes instead of B. The
  tokens of a pass are not neighbours if B is a power of the base. A grid of which nothing is masked
  takes no pass. Raises ValueError for a base below 2.
  """

  base: int = size_field(default=2)
  exactness = Exactness.APPROXIMATE
  reason = INDEPENDENT
  advances = True

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.base < 2:
      raise ValueError(f"base must be at least 2, got {self.base}")

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    offset, size = view.offset, view.open.shape[1]
    of_block = view.open | view.decided
    length = jnp.max(jnp.where(of_block, offset + 1, 1), axis=1, keepdims=True)
    grid, spacing, power = jnp.full_like(offset, size), length, 0
    while self.base**power < size:
      power += 1
      spacing = jnp.maximum(1, length // self.base**power)
      on_grid = offset % spacing == 0
      grid = jnp.where(on_grid, jnp.minimum(grid, power), grid)
    coarsest = jnp.min(jnp.where(view.open, grid, size), axis=1, keepdims=True)
    return view.open & (grid == coarsest)
