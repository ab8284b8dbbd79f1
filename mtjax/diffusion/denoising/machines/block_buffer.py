"""A buffer of blocks over exact keys, whose tokens may be edited while they are in it (MultiBD)."""

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
from mtjax.diffusion.denoising.machines.passes import OverFinalBlocks
from mtjax.diffusion.denoising.machines.pipeline import EARLY
from mtjax.diffusion.denoising.machines.protocol import Score, check_blocks
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.rule import PROBABILITY, SHARE, PerRow, Range, rule, size_field
from mtjax.types import Exactness


@rule
class BlockBuffer(FlightPolicy):
  """Up to `in_flight` blocks in a buffer: Diffulex's MultiBD (multi-block decoding).

  As in a `Pipeline`, a pass decides the positions above `threshold`, and the best one of a block
  without any, if the block before it has at least a share `activate` decided. What differs:

  * A block begins when the last one has a share `add` decided and a share `stability` of its
    decided tokens were their own candidates in the last pass.
  * A decided token that differs from its candidate becomes it, if p(candidate) > `edit`; 1: never.
    A block with editing is final after a pass that changes nothing in it, or after `max_post_steps`
    passes without a mask (LLaDA2.1's token-to-token editing in every block of the buffer).
  * Final blocks leave the buffer from the front, one pass after they are final: in that pass their
    keys are computed from their tokens and kept, and blocks that left are not computed again. A
    final block holds its place for that pass.
  """

  add: PerRow = 0.1
  stability: PerRow = 0.0
  activate: PerRow = 0.9
  threshold: PerRow = 0.9
  edit: PerRow = 1.0
  max_post_steps: PerRow = 16
  in_flight: int = size_field(default=4)
  ranges: ClassVar[dict[str, Range]] = {
    "add": SHARE,
    "stability": SHARE,
    "activate": PROBABILITY,
    "threshold": PROBABILITY,
    "edit": SHARE,
    "max_post_steps": Range(low=0.0),
  }
  exactness = Exactness.APPROXIMATE
  reason = EARLY
  needs = "a block-causal one"

  def check(self, network: MaskedNetwork) -> None:
    """Raises ValueError for a network without blocks."""
    check_blocks(network, "a buffer of blocks")
    OverFinalBlocks().check(network)

  def program(self, network: MaskedNetwork, score: Score, num_blocks: int) -> BlocksInFlight:
    """Returns the rounds."""
    return BlocksInFlight(network, min(self.in_flight, num_blocks), score, OverFinalBlocks())

  def admits(self, progress: Float[Array, " B"], stable: Float[Array, " B"]) -> Bool[Array, " B"]:
    """Returns true where enough of the last block is decided, and enough of that is stable."""
    return (progress >= self.add) & (stable >= self.stability)

  def decide(self, blocks: Blocks, candidates: CanvasCandidates) -> BlockDecision:
    """Returns the positions above the threshold, the best ones of activated blocks, and edits."""
    written = above_or_best(blocks, candidates, self.threshold, self.activate)
    edits = self.edit < 1.0
    sure = jnp.exp(candidates.confidence) > self.edit[:, None]
    changes = blocks.view.decided & (candidates.token != blocks.view.token)
    edited = changes & sure & edits[:, None]
    settled = unchanged(blocks, written | edited) | ~edits[:, None]
    settled |= blocks.post >= self.max_post_steps[:, None]
    return BlockDecision(written, edited, settled)


def unchanged(blocks: Blocks, changed: Bool[Array, "B W"]) -> Bool[Array, "B K"]:
  """Returns the blocks of which no position is changed."""
  return ~jnp.any(changed.reshape(blocks.shape), axis=2)
