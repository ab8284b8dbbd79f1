"""What a policy of blocks in flight sees of a pass, and what it decides."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.soft_inputs import Soften
from mtjax.diffusion.denoising.state import Job, Window
from mtjax.diffusion.ranking import first
from mtjax.diffusion.rule import PerRowRule
from mtjax.diffusion.view import View
from mtjax.models import Params


class Blocks(NamedTuple):
  """The K blocks of a window of W positions. Of final blocks no position is masked or decided."""

  view: View
  before: Float[Array, "B K"]  # share of the block before that is decided; 1: there is none
  post: Int[Array, "B K"]  # passes that a block had after its last mask, this one too

  @property
  def shape(self) -> tuple[int, int, int]:
    """The numbers of rows, of blocks and of positions per block."""
    batch, blocks = self.before.shape
    return batch, blocks, self.view.token.shape[1] // blocks


class BlockDecision(NamedTuple):
  """What a pass does."""

  written: Bool[Array, "B W"]  # masked positions that get their candidate
  edited: Bool[Array, "B W"]  # decided positions whose token becomes their candidate
  settled: Bool[Array, "B K"]  # blocks that are final after it, if no mask is left in them


class FlightPolicy(PerRowRule):
  """Base of machines with blocks in flight: says when blocks begin, and what a pass decides."""

  def admits(self, progress: Float[Array, " B"], stable: Float[Array, " B"]) -> Bool[Array, " B"]:
    """Returns true where the next block may begin.

    `progress`: the share of the last block that is decided. `stable`: the share of its decided
    tokens that were their own candidates in the last pass.
    """
    raise NotImplementedError

  def decide(self, blocks: Blocks, candidates: CanvasCandidates) -> BlockDecision:
    """Returns what a pass does."""
    raise NotImplementedError

  def start(self, batch: int, size: int) -> PyTree:
    """Returns the memory of the policy before the first pass."""
    return ()

  def remember(
    self,
    memory: PyTree,
    window: Window,
    blocks: Blocks,
    candidates: CanvasCandidates,
    decision: BlockDecision,
  ) -> PyTree:
    """Returns the memory after a pass."""
    return memory

  def soften(self, network: MaskedNetwork, params: Params, memory: PyTree) -> Soften | None:
    """Returns what puts vectors in place of tokens, whose positions say where they stand."""
    return None

  def counters(self, state: Any) -> dict[str, int]:
    """Returns what else there is to count of a run."""
    return {}


def above_or_best(
  blocks: Blocks,
  candidates: CanvasCandidates,
  threshold: Float[Array, " B"],
  activate: Float[Array, " B"],
) -> Bool[Array, "B W"]:
  """Returns the masked positions whose probability is above the threshold.

  A block whose predecessor has at least a share `activate` decided has its best position among
  them, if none reaches the threshold.
  """
  batch, count, size = blocks.shape
  probability = jnp.exp(candidates.confidence)
  chosen = blocks.view.open & (probability > threshold[:, None])
  none = ~jnp.any(chosen.reshape(batch, count, size), axis=2)
  forced = none & (blocks.before >= activate[:, None])
  flat = (batch * count, size)
  best = first(
    probability.reshape(flat), blocks.view.open.reshape(flat), forced.reshape(-1).astype(jnp.int32)
  )
  return chosen | best.reshape(chosen.shape)


def progress_of(job: Job, block: Window, masked: Bool[Array, "B W"]) -> Float[Array, " B"]:
  """Returns the share of a block's generated positions that are decided; 1 where it has none."""
  generated = block.inside & (block.index >= job.start[:, None])
  total = jnp.sum(generated, axis=1)
  return 1.0 - jnp.sum(generated & masked, axis=1) / jnp.maximum(total, 1)
