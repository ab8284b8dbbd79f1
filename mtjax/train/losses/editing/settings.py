"""What the objectives of editing share: noise, weights, and the pass over noisy texts."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.noising.schedules import NoiseSchedule, make_schedule
from mtjax.diffusion.noising.times import spread_times
from mtjax.diffusion.rows import block_starts, document_blocks, document_canvas
from mtjax.models import Params
from mtjax.train.losses.masked_diffusion import check_min_time
from mtjax.train.losses.objective import Batch


@dataclasses.dataclass(frozen=True)
class EditNoise:
  """Settings that the objectives of editing have in common.

  `schedule`, `power`, `window` and `min_time`: those of masks, as of masked diffusion. `replaced`:
  the probability that a token without a mask gives way to a random one. `edit_weight`: the weight
  of tokens that stand in a draft, where those that are masked have the schedule's. `draft_weight`:
  that of tokens in a second pass, in which the model's own tokens stand where masks were; 0: there
  is no second pass.
  """

  schedule: str = "linear"
  power: float = 2.0
  window: tuple[float, float] = (1e-3, 1.0)
  min_time: float = 1e-3
  replaced: float = 0.1
  edit_weight: float = 1.0
  draft_weight: float = 0.0

  def __post_init__(self):
    self.noise()
    check_min_time(self.min_time)
    check_share("replaced", self.replaced)
    for name in ("edit_weight", "draft_weight"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

  def noise(self) -> NoiseSchedule:
    """Returns the schedule of masks."""
    return make_schedule(self.schedule, power=self.power, window=self.window)

  def times(self, key: PRNGKeyArray, batch: Batch, size: int) -> Float[Array, "B L"]:
    """Returns the time of each block of `size` tokens, or, if that is 0, of each document."""
    position = batch["position"]
    first = block_starts(position, size) if size else position == 0
    return spread_times(key, (batch["segment"] > 0) & first, low=self.min_time)


def check_share(name: str, share: float) -> None:
  """Raises ValueError for a probability out of 0 to 1."""
  if not 0 <= share <= 1:
    raise ValueError(f"{name} must be a probability, within 0 to 1, got {share}")


def countable(network: MaskedNetwork, batch: Batch) -> Bool[Array, "B L"]:
  """Returns the tokens that are learned: all, but no mask that is text, which none can predict.

  In a shifted model the first token of a document is not, as no entry is before it.
  """
  counts = (batch["segment"] > 0) & (batch["tokens"] != network.mask_id)
  return counts & (batch["position"] > 0) if network.shifted else counts


def place_logits(
  network: MaskedNetwork, params: Params, noisy: Int[Array, "B L"], batch: Batch
) -> Float[Array, "B L V"]:
  """Returns what a model says of each place of noisy texts, without a chance for its mask.

  Blocks of a block model see the clean blocks before them, in a pass of twice as many entries.
  """
  token, document = batch["tokens"], batch["segment"]
  size, rows = network.block_length, jnp.broadcast_to(jnp.arange(token.shape[1]), token.shape)
  if size:
    frontier = document_blocks(noisy, token, document, size)
  else:
    frontier = document_canvas(noisy, document)
  if network.shifted:
    # The first token of a block is predicted at the last clean entry of the block before it.
    clean = block_starts(batch["position"], size) * token.shape[1] if size else 0
    rows = jnp.maximum(rows - 1 + clean, 0)
  return network.logits(network.model.forward(params, frontier, rows=rows))
