"""Fast-dLLM v2 as a machine: its settings, and what it needs."""

from typing import Any, ClassVar

import numpy as np

from mtjax.diffusion.denoising.machines.protocol import Score, check_blocks
from mtjax.diffusion.denoising.machines.sub_block_rounds import SubBlockRounds
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.rule import PROBABILITY, PerRow, PerRowRule, Range, rule, size_field
from mtjax.types import Exactness


@rule
class SubBlocks(PerRowRule):
  """Fast-dLLM v2 (2509.26328): blocks of sub-blocks of `sub_block` positions.

  A pass decides the masks of the first undecided sub-block whose probability is above `threshold`,
  and the best one in any case (`SubBlockRounds`). The network is block-causal with shifted logits;
  `sub_block` divides its blocks. Keys of finished blocks are exact. A row ends with a block that
  has an end token; its last block is not committed. `Denoised.counters` has the passes over whole
  blocks and the commits, which `forwards` includes. Reading the prompt is not counted, but for the
  commit of the last block of a prompt that ends with one.
  """

  threshold: PerRow = 0.9
  sub_block: int = size_field(default=8)
  ranges: ClassVar[dict[str, Range]] = {"threshold": PROBABILITY}
  exactness = Exactness.APPROXIMATE
  reason = (
    "keys of other sub-blocks are those of the last pass over the whole block, and the tokens of "
    "one pass are sampled independently of each other"
  )
  needs = "a block-causal one with shifted logits"

  def check(self, network: MaskedNetwork) -> None:
    """Raises ValueError for a network of another kind, and blocks that do not divide."""
    check_blocks(network, "decoding by sub-blocks")
    if not network.shifted:
      raise ValueError(
        "decoding by sub-blocks needs a network with shifted logits, whose last entry of a block "
        "predicts the first token of the next one"
      )
    if network.block_length < 2:
      raise ValueError("decoding by sub-blocks needs blocks of at least 2 positions")
    if network.block_length % self.sub_block:
      raise ValueError(
        f"sub_block must divide the network's blocks of {network.block_length} positions, got "
        f"{self.sub_block}"
      )

  def program(self, network: MaskedNetwork, score: Score, num_blocks: int) -> SubBlockRounds:
    """Returns the rounds."""
    return SubBlockRounds(network, self.sub_block, score)

  def counters(self, state: Any) -> dict[str, int]:
    """Returns the numbers of passes over whole blocks and of commits."""
    return dict(
      whole_block_forwards=int(np.asarray(state.whole_passes).sum()),
      commit_forwards=int(np.asarray(state.commits).sum()),
    )
