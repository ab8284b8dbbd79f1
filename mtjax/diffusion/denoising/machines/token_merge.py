"""DMax: all tokens of a block are decided anew in every pass, and seen as far as they are sure."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.denoising.machines.block_buffer import unchanged
from mtjax.diffusion.denoising.machines.blocks import BlockDecision, Blocks, FlightPolicy
from mtjax.diffusion.denoising.machines.in_flight import BlocksInFlight
from mtjax.diffusion.denoising.machines.passes import OverFinalBlocks
from mtjax.diffusion.denoising.machines.pipeline import EARLY
from mtjax.diffusion.denoising.machines.protocol import Score, check_blocks
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.soft_inputs import Soften, merged_with_mask
from mtjax.diffusion.denoising.state import Window
from mtjax.diffusion.rule import PROBABILITY, SHARE, PerRow, Range, rule, size_field
from mtjax.models import Params
from mtjax.models.access import EmbeddingAccess
from mtjax.types import Exactness


@rule
class TokenMerge(FlightPolicy):
  """DMax as Diffulex has it: a `BlockBuffer` with other decisions, and with soft inputs.

  * In each block a pass decides the masks from the left up to the first one whose probability is
    below `threshold`, and one at least.
  * Every decided token becomes its candidate, however sure that is.
  * The input of a decided token is p E[x] + (1 - p) E[MASK], with p its probability in the last
    pass (`merged_with_mask`); tokens of final blocks are tokens.
  * A block is final after a pass that changes nothing in it, or in which all its tokens have a
    probability of at least `confident`, or after `max_post_steps` passes without a mask, which
    bounds it.

  The next block begins as in a `Pipeline`. The network is to be trained on such inputs.
  """

  threshold: PerRow = 0.5
  confident: PerRow = 0.9
  add: PerRow = 0.1
  max_post_steps: PerRow = 16
  in_flight: int = size_field(default=1)
  ranges: ClassVar[dict[str, Range]] = {
    "threshold": PROBABILITY,
    "confident": PROBABILITY,
    "add": SHARE,
    "max_post_steps": Range(low=0.0),
  }
  exactness = Exactness.APPROXIMATE
  reason = f"inputs are mixtures of embeddings; {EARLY}"
  needs = "a block-causal one"

  def check(self, network: MaskedNetwork) -> None:
    """Raises ValueError for a network without blocks, or without embeddings to mix."""
    check_blocks(network, "merging tokens with masks")
    OverFinalBlocks().check(network)
    EmbeddingAccess.of(network.model.config)

  def program(self, network: MaskedNetwork, score: Score, num_blocks: int) -> BlocksInFlight:
    """Returns the rounds."""
    return BlocksInFlight(network, min(self.in_flight, num_blocks), score, OverFinalBlocks())

  def admits(self, progress: Float[Array, " B"], stable: Float[Array, " B"]) -> Bool[Array, " B"]:
    """Returns true where enough of the last block is decided."""
    return progress >= self.add

  def start(self, batch: int, size: int) -> Float[Array, "B S"]:
    """Returns the probability of each position's token; 1 where it is seen as it is."""
    return jnp.ones((batch, size), jnp.float32)

  def decide(self, blocks: Blocks, candidates: CanvasCandidates) -> BlockDecision:
    """Returns the first masks of each block, and all decided tokens that are other candidates."""
    view, probability = blocks.view, jnp.exp(candidates.confidence)
    open_ = view.open.reshape(blocks.shape)
    low = open_ & (probability < self.threshold[:, None]).reshape(blocks.shape)
    number = jnp.cumsum(open_, axis=2)
    chosen = open_ & ((jnp.cumsum(low, axis=2) == 0) | (number == 1))
    written = chosen.reshape(view.open.shape)
    edited = view.decided & (candidates.token != view.token)
    unsure = (view.open | view.decided) & (probability < self.confident[:, None])
    settled = unchanged(blocks, written | edited) | unchanged(blocks, unsure)
    settled |= blocks.post >= self.max_post_steps[:, None]
    return BlockDecision(written, edited, settled)

  def remember(
    self,
    memory: Float[Array, "B S"],
    window: Window,
    blocks: Blocks,
    candidates: CanvasCandidates,
    decision: BlockDecision,
  ) -> Float[Array, "B S"]:
    """Returns the probabilities of decided tokens, with 1 for those of final blocks."""
    view = blocks.view
    masked = view.masked & ~decision.written
    final = decision.settled & unchanged(blocks, masked)
    final = jnp.repeat(final, blocks.shape[2], axis=1)
    decided = (view.decided | decision.written) & ~final
    probability = jnp.minimum(jnp.exp(candidates.confidence), 1.0)
    return window.write(memory, jnp.where(decided, probability, 1.0))

  def soften(self, network: MaskedNetwork, params: Params, memory: Float[Array, "B S"]) -> Soften:
    """Returns what merges tokens with masks."""
    return merged_with_mask(network, params, memory)
