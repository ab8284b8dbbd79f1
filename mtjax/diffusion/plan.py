"""How many blocks a canvas has, how many passes each of them, and at which masking rates."""

import dataclasses

from jaxtyping import Array, Float, Int

from mtjax.arguments import integer


@dataclasses.dataclass(frozen=True)
class BlockPlan:
  """A canvas of `length` positions in blocks from left to right, in `steps` passes altogether.

  LLaDA's `generate`: every block has the same number of passes. Raises ValueError for numbers that
  do not divide.
  """

  length: int
  block_length: int
  steps: int

  def __post_init__(self):
    for name in ("length", "block_length", "steps"):
      value = integer(getattr(self, name), name)
      if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
      object.__setattr__(self, name, value)
    if self.length % self.block_length:
      raise ValueError(
        f"length must be a multiple of block_length, got {self.length} and {self.block_length}"
      )
    if self.steps < self.num_blocks:
      raise ValueError(
        f"steps must be at least the number of blocks, {self.num_blocks} of {self.block_length} "
        f"positions, because each needs a pass: got {self.steps}"
      )
    if self.steps % self.num_blocks:
      raise ValueError(
        f"steps must be a multiple of the number of blocks, {self.num_blocks}, so that all have "
        f"the same number of passes: got {self.steps}"
      )

  @property
  def num_blocks(self) -> int:
    """The number of blocks."""
    return self.length // self.block_length

  @property
  def steps_per_block(self) -> int:
    """The number of passes of a block."""
    return self.steps // self.num_blocks


def linear_rates(
  step: Int[Array, " B"], steps: Int[Array, " B"], final: float = 1e-3
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
  """Returns the masking rates before and after pass `step`: linspace(1, final, steps + 1).

  Dream's `diffusion_generate` has final 1e-3; 0 is the plain linear schedule.
  """
  fall = (1.0 - final) / steps
  return 1.0 - step * fall, 1.0 - (step + 1) * fall
