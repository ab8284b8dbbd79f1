"""The loss of block diffusion: masked diffusion of each block, given the clean blocks before it."""

import dataclasses

import jax
import jax.numpy as jnp

from mtjax.diffusion.noising.forward import mask_tokens
from mtjax.diffusion.noising.schedules import NoiseSchedule, make_schedule
from mtjax.diffusion.noising.times import spread_times
from mtjax.diffusion.rows import block_starts, document_blocks
from mtjax.models import Model, Params
from mtjax.train.losses.masked_diffusion import (
  check_anneal,
  check_min_time,
  masked_network,
  opened,
  with_ends,
)
from mtjax.train.losses.objective import Batch, Loss, Total, next_token


@dataclasses.dataclass(frozen=True)
class BlockDiffusion:
  """Settings of block diffusion, as of masked diffusion (`anneal` too: the causal mask opens).

  BD3-LM's clipped schedules are the schedule "clipped" and a window; the window (1, 1) with blocks
  of one token is the exact autoregressive loss.
  """

  schedule: str = "linear"
  power: float = 2.0
  window: tuple[float, float] = (1e-3, 1.0)
  min_time: float = 1e-3
  anneal: int = 0

  def __post_init__(self):
    self.noise()
    check_min_time(self.min_time)
    check_anneal(self.anneal)

  def noise(self) -> NoiseSchedule:
    """Returns the schedule."""
    return make_schedule(self.schedule, power=self.power, window=self.window)


def block_diffusion_loss(model: Model, settings: BlockDiffusion) -> Loss:
  """Returns nats per token of log p = sum over blocks of log p(block | clean blocks before it).

  (BD3-LM 2503.09573, eq. 8.) Each term is the bound of masked diffusion with the block's own time.
  One pass takes noisy and clean entries, 2L of them, with each position twice. Times are spread
  over all blocks of a batch. The sum is divided by the number of all tokens that can be masked. The
  loss reports `masked`, the share of tokens that are masked.

  Blocks have `block_length` tokens of the model. If its `alignment` is shifted, the first token of
  a block is predicted at the last clean entry of the block before it, and the first token of a
  document is never masked and does not count, and its end is not learned. Before the first of
  `anneal` steps such a model predicts the first token of each block as the causal model does that
  it begins as, and so every token that follows clean ones of its block. Raises ValueError for a
  model without a mask or without blocks.
  """
  network = masked_network(model)
  size, mask, schedule = network.block_length, network.mask_id, settings.noise()
  if not size:
    raise ValueError(
      "the objective 'block_diffusion' trains models whose entries see blocks: model.block_length "
      "must be at least 1, got 0"
    )

  def prepare(batch: Batch, key, step) -> Batch:
    time_key, mask_key, text_key = jax.random.split(key, 3)
    batch = batch if network.shifted else with_ends(batch, text_key)
    valid, position = batch["segment"] > 0, batch["position"]
    t = spread_times(time_key, valid & block_starts(position, size), low=settings.min_time)
    # A mask of the vocabulary may stand in a text, where it is text.
    counts = valid & (batch["tokens"] != mask)
    counts = counts & (position > 0) if network.shifted else counts
    masked = mask_tokens(mask_key, counts, jnp.asarray(schedule.masked(t)))
    each = jnp.asarray(schedule.weight(t))
    out = {**batch, "counts": counts, "masked": masked, "each": each}
    if settings.anneal:
      open_key = jax.random.fold_in(key, 3)
      out["open"] = opened(open_key, valid.shape, step, settings.anneal)
    return out

  def total(params: Params, batch: Batch) -> Total:
    token, document, masked = batch["tokens"], batch["segment"], batch["masked"]
    noisy = jnp.where(masked, mask, token)
    frontier = document_blocks(noisy, token, document, size, batch.get("open"))
    rows = jnp.broadcast_to(jnp.arange(token.shape[1]), token.shape)
    if network.shifted:
      # The noisy entry before a block is of another block, which this one is not predicted from.
      clean = block_starts(batch["position"], size) * token.shape[1]
      rows = jnp.maximum(rows - 1 + clean, 0)
    logits = network.logits(model.forward(params, frontier, rows=rows))
    weight = jnp.where(masked, batch["each"], 0.0)
    count = jnp.sum(batch["counts"]).astype(jnp.float32)
    parts = {"masked": jnp.sum(masked).astype(jnp.float32)}
    return Total(next_token(logits, token, weight).sum, count, parts)

  return Loss(total, prepare)
