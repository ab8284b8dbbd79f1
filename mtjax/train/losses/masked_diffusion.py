"""The loss of masked diffusion: the bound of a text, from masks at random times."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.noising.forward import mask_tokens
from mtjax.diffusion.noising.schedules import NoiseSchedule, make_schedule
from mtjax.diffusion.noising.times import spread_times
from mtjax.diffusion.noising.token_schedules import (
  load_powers,
  masked_by_token,
  token_schedule_loss,
)
from mtjax.diffusion.rows import document_canvas
from mtjax.models import Model, Params
from mtjax.train.losses.objective import Batch, Loss, Total, next_token


@dataclasses.dataclass(frozen=True)
class MaskedDiffusion:
  """Settings of masked diffusion.

  `schedule`: linear, cosine, polynomial (`power`), log_linear, or clipped, whose probabilities of
  masking are uniform on `window`: the window (1e-3, 1) is LLaDA's form. Times are at least
  `min_time`. `powers`: an .npy file with a power for each token of the vocabulary, which then has a
  polynomial schedule of its own (GenMD4); "": all tokens share `schedule`. `anneal`: number of
  steps in which the causal mask opens, for a model that begins as a causal one; 0: it is open from
  the start.
  """

  schedule: str = "linear"
  power: float = 2.0
  window: tuple[float, float] = (1e-3, 1.0)
  min_time: float = 1e-3
  powers: str = ""
  anneal: int = 0

  def __post_init__(self):
    self.noise()
    check_min_time(self.min_time)
    check_anneal(self.anneal)

  def noise(self) -> NoiseSchedule:
    """Returns the schedule."""
    return make_schedule(self.schedule, power=self.power, window=self.window)


def masked_diffusion_loss(model: Model, settings: MaskedDiffusion) -> Loss:
  """Returns nats per token: sum over masked entries of -alpha' / (1 - alpha) * cross-entropy.

  (MDLM 2406.07524, eq. 10; MD4 2406.04329, eq. 5; LLaDA 2502.09992, eq. 3.) The sum is divided by
  the number of all tokens that can be masked, so that its mean over times is the bound of
  -log p(text) per token. A clean entry costs nothing (carry-over), and a mask is impossible by
  construction (SUBS). The token of a masked entry is predicted there, or, in a model whose
  `alignment` is shifted (Dream, for models that begin as causal ones), at the entry before it: then
  the first token of a document is never masked and does not count, and its end is not learned.

  Every document of the rows has its own time; times are spread over all documents of a batch. The
  loss reports `masked`, the share of tokens that are masked. Raises ValueError for a model without
  a mask, for one of blocks, and for powers that are not those of the vocabulary.
  """
  network = masked_network(model)
  if network.block_length:
    raise ValueError(
      "the objective 'masked_diffusion' trains models whose entries all see each other, and "
      f"model.block_length is {network.block_length}: use 'block_diffusion', or set it to 0"
    )
  mask, schedule, shifted = network.mask_id, settings.noise(), network.shifted
  power = load_powers(settings.powers, model.config.vocab_size) if settings.powers else None

  def prepare(batch: Batch, key, step) -> Batch:
    time_key, mask_key, open_key, text_key = jax.random.split(key, 4)
    batch = batch if shifted else with_ends(batch, text_key)
    valid, position = batch["segment"] > 0, batch["position"]
    t = spread_times(time_key, valid & (position == 0), low=settings.min_time)
    # A mask of the vocabulary may stand in a text, where it is text.
    counts = valid & (batch["tokens"] != mask)
    counts = counts & (position > 0) if shifted else counts
    chance = schedule.masked(t) if power is None else masked_by_token(t, batch["tokens"], power)
    masked = mask_tokens(mask_key, counts, jnp.asarray(chance))
    is_open = opened(open_key, valid.shape, step, settings.anneal)
    each = jnp.asarray(schedule.weight(t) if power is None else 1 / t)
    return {**batch, "counts": counts, "masked": masked, "each": each, "open": is_open}

  def total(params: Params, batch: Batch) -> Total:
    token, masked = batch["tokens"], batch["masked"]
    frontier = document_canvas(jnp.where(masked, mask, token), batch["segment"], batch["open"])
    logits = network.logits(model.forward(params, frontier))
    weight = jnp.where(masked, batch["each"], 0.0)
    if shifted:
      logits, token, weight = logits[:, :-1], token[:, 1:], weight[:, 1:]
    token = jnp.where(weight > 0, token, 0)
    if power is None:
      nats = next_token(logits, token, weight).sum
    else:
      log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
      nats = jnp.sum(weight * token_schedule_loss(log_probs, token, power))
    count = jnp.sum(batch["counts"]).astype(jnp.float32)
    parts = {"masked": jnp.sum(masked).astype(jnp.float32)}
    return Total(nats, count, parts)

  return Loss(total, prepare)


def masked_network(model: Model) -> MaskedNetwork:
  """Returns the model with its conventions. Raises ValueError for a model without a mask."""
  try:
    return MaskedNetwork.of(model)
  except ValueError as error:
    raise ValueError(
      f"a diffusion model needs a mask, for example model.extra_embeddings=1 and "
      f"model.extra_names=('mask',): {error}"
    ) from None


def with_ends(batch: Batch, key: PRNGKeyArray) -> Batch:
  """Returns the batch with the texts of a random half of its rows one token further on.

  A row's tokens are those that a causal model reads: a text's begin token is among them, and its
  end is not. One token further on it is the other way round, so the model learns both.
  """
  later = jax.random.bernoulli(key, shape=(len(batch["tokens"]), 1))
  return {**batch, "tokens": jnp.where(later, batch["targets"], batch["tokens"])}


def opened(
  key: PRNGKeyArray, shape: tuple[int, ...], step: Int[Array, ""] | int, anneal: int
) -> Bool[Array, "B L"]:
  """Returns which entries are seen by those before them: a share that grows in `anneal` steps."""
  share = jnp.minimum(step / anneal, 1.0) if anneal else 1.0
  return jax.random.uniform(key, shape) < share


def check_anneal(anneal: int) -> None:
  """Raises ValueError for a negative number of steps."""
  if anneal < 0:
    raise ValueError(f"anneal must not be negative, got {anneal}")


def check_min_time(min_time: float) -> None:
  """Raises ValueError for a least time that is not small and above 0."""
  if not 0 < min_time < 0.5:
    raise ValueError(f"min_time must be above 0 and below 0.5, got {min_time}")
