"""A pipeline of blocks: the next ones begin while a block is still being decided (D2F)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.denoising.machines.blocks import (
  BlockDecision,
  Blocks,
  FlightPolicy,
  above_or_best,
)
from mtjax.diffusion.denoising.machines.in_flight import BlocksInFlight
from mtjax.diffusion.denoising.machines.passes import WholeCanvas
from mtjax.diffusion.denoising.machines.protocol import Score, check_blocks
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.rule import PROBABILITY, SHARE, PerRow, Range, rule, size_field
from mtjax.types import Exactness

EARLY = (
  "blocks are decided before the blocks that they follow are final, and the tokens of one pass are "
  "sampled independently of each other"
)


@rule
class Pipeline(FlightPolicy):
  """When blocks begin, and which of their positions a pass decides (D2F 2508.09192, section 4.3).

  A pass decides every masked position of the blocks in flight whose candidate has a probability
  above `threshold`. A block begins, with all its positions masked, when the share of decided
  positions of the one before reaches `add`, at most one block per pass. It is fully activated when
  that share reaches `activate`, as the first block is: then it decides its best position, if none
  reaches the threshold. After an end token no further block begins.

  `in_flight`: the largest number of blocks from the first undecided one to the last that began.
  Every pass computes the whole canvas as far as it has begun.
  """

  add: PerRow = 0.1
  activate: PerRow = 0.95
  threshold: PerRow = 0.9
  in_flight: int = size_field(default=4)
  ranges: ClassVar[dict[str, Range]] = {
    "add": SHARE,
    "activate": PROBABILITY,
    "threshold": PROBABILITY,
  }
  exactness = Exactness.APPROXIMATE
  reason = EARLY
  needs = "a block-causal one"

  def check(self, network: MaskedNetwork) -> None:
    """Raises ValueError for a network without blocks."""
    check_blocks(network, "a pipeline of blocks")

  def program(self, network: MaskedNetwork, score: Score, num_blocks: int) -> BlocksInFlight:
    """Returns the rounds."""
    return BlocksInFlight(network, min(self.in_flight, num_blocks), score, WholeCanvas())

  def admits(self, progress: Float[Array, " B"], stable: Float[Array, " B"]) -> Bool[Array, " B"]:
    """Returns true where enough of the last block is decided."""
    return progress >= self.add

  def decide(self, blocks: Blocks, candidates: CanvasCandidates) -> BlockDecision:
    """Returns the positions above the threshold, and the best ones of activated blocks."""
    written = above_or_best(blocks, candidates, self.threshold, self.activate)
    return BlockDecision(written, jnp.zeros_like(written), jnp.ones(blocks.shape[:2], bool))
