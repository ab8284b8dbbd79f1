"""The loss of uniform canvases after causal text: what a DiffusionGemma is trained with."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mtjax import frontier as frontier_lib
from mtjax.diffusion.noising.forward import UniformNoise, noisy_tokens
from mtjax.diffusion.noising.schedules import NoiseSchedule, make_schedule
from mtjax.diffusion.noising.times import run_start, spread_times
from mtjax.diffusion.rows import document_canvases
from mtjax.models import DiffusionGemmaConfig, Model, Params, signal_of
from mtjax.train.losses.masked_diffusion import check_min_time, with_ends
from mtjax.train.losses.objective import Batch, Loss, Total, next_token
from mtjax.types import Frontier


@dataclasses.dataclass(frozen=True)
class CanvasDiffusion:
  """Settings of diffusion of canvases.

  `schedule`, `power` and `window` are those of masked diffusion. What is there the probability that
  a token is masked at time t, is here the probability that it is random. `min_time`: the least
  time. `conditioned`: the share of rows in which a canvas is told what a first pass over it
  predicted. `causal`: the weight of the cross-entropy of next tokens at clean entries; 0 leaves it
  out.
  """

  schedule: str = "linear"
  power: float = 2.0
  window: tuple[float, float] = (1e-3, 1.0)
  min_time: float = 1e-3
  conditioned: float = 0.5
  causal: float = 0.1

  def __post_init__(self):
    self.noise()
    check_min_time(self.min_time)
    if not 0 <= self.conditioned <= 1:
      raise ValueError(f"conditioned must be a share from 0 to 1, got {self.conditioned}")
    if not 0 <= self.causal < float("inf"):
      raise ValueError(f"causal must be at least 0, got {self.causal}")

  def noise(self) -> NoiseSchedule:
    """Returns the schedule."""
    return make_schedule(self.schedule, power=self.power, window=self.window)


def canvas_diffusion_loss(model: Model, settings: CanvasDiffusion) -> Loss:
  """Returns nats per token of canvases: cross-entropy of all their tokens, noisy or not.

  One pass takes noisy and clean entries, 2L of them, with each position twice. Clean entries are
  causal, as the encoder is. A canvas of `canvas_length` tokens sees itself and the clean text
  before it, as in the decoder. Every token of a canvas is random with a probability that grows with
  the canvas's time, each token of the vocabulary alike, and every token counts with weight 1: so
  the model learns p(token | noisy canvas), and the loss is no bound of a likelihood.

  Self-conditioning (Analog Bits 2208.04202, sec. 3.2): in a share of the rows, a first pass without
  a signal predicts the canvases, and the second pass is told the expected embeddings of what it
  predicted. No gradient goes through the first pass.

  The recipe of the published model is not known. A public one for its fine-tuning has this noise,
  these weights, this self-conditioning and a causal loss. Our choices are: a time per canvas in
  place of one per text, spread over all canvases of a batch; the weight of the causal loss; the
  first 1 to `canvas_length` tokens of a text, a random number of them, are a prompt that no canvas
  has to predict, as canvases of the decoder begin after any prompt; the last canvas of a text ends
  with the text; routers are trained as all else.

  The loss reports `canvas` and `next_token`, the two parts before their sum, both per token of
  canvases, and `noisy`, the share of tokens that noise changed. Raises ValueError for a model that
  has no causal encoder and canvases.
  """
  config = model.config
  if not isinstance(config, DiffusionGemmaConfig):
    raise ValueError(
      "the objective 'canvas_diffusion' trains models with a causal encoder and canvases: "
      f"model.kind must be 'diffusion_gemma', got {config.kind!r}"
    )
  family = UniformNoise(settings.noise())

  def prepare(batch: Batch, key, step) -> Batch:
    del step
    time_key, noise_key, text_key, start_key, row_key = jax.random.split(key, 5)
    batch = with_ends(batch, text_key)
    valid, position = batch["segment"] > 0, batch["position"]
    start = prompt_lengths(start_key, position, config.canvas_length)
    counts = valid & (position >= start)
    first = (position == 0) | (counts & ((position - start) % config.canvas_length == 0))
    t = spread_times(time_key, counts & first, low=settings.min_time)
    # Without a share of masks there is none, whatever its id.
    noisy = noisy_tokens(
      noise_key, batch["tokens"], family.at(t), vocab_size=config.vocab_size, mask=-1
    )
    rows = jnp.ones((len(position), 1), bool)
    conditioned = spread_times(row_key, rows)[:, 0] < settings.conditioned
    more = dict(noisy=noisy, counts=counts, first=first, conditioned=conditioned)
    return {**batch, **more}

  def total(params: Params, batch: Batch) -> Total:
    token, document, counts = batch["tokens"], batch["segment"], batch["counts"]
    canvases = document_canvases(batch["noisy"], token, document, batch["first"])
    size = token.shape[1]
    own = jnp.broadcast_to(jnp.arange(size), token.shape)

    def logits(signal, rows):
      frontier = with_signal(canvases, signal)
      return model.forward(params, frontier, rows=rows).logits

    signal = jnp.zeros((*token.shape, config.dim), jnp.dtype(config.dtype))
    if settings.conditioned:
      told = jax.lax.stop_gradient(signal_of(config, params, logits(signal, own)))
      signal = jnp.where(batch["conditioned"][:, None, None], told, signal)
    found = logits(signal, None if settings.causal else own)
    count = jnp.sum(counts).astype(jnp.float32)
    nats = next_token(found[:, :size], token, counts.astype(jnp.float32)).sum
    changed = counts & (batch["noisy"] != token)
    parts = {"noisy": jnp.sum(changed).astype(jnp.float32)}
    if not settings.causal:
      return Total(nats, count, parts)
    follows = (document[:, 1:] == document[:, :-1]) & (document[:, 1:] > 0)
    weight = follows.astype(jnp.float32)
    after = next_token(found[:, size:-1], token[:, 1:], weight).sum
    return Total(nats + settings.causal * after, count, parts | dict(canvas=nats, next_token=after))

  return Loss(total, prepare)


def prompt_lengths(
  key: PRNGKeyArray, position: Int[Array, "B L"], canvas_length: int
) -> Int[Array, "B L"]:
  """Returns, per entry, how many tokens of its text are a prompt: 1 to `canvas_length`.

  The number is random, the same for all entries of a text, and leaves at least one token of every
  text of two or more.
  """
  index = jnp.arange(position.shape[1])
  later = jnp.concatenate([position[:, 1:] == 0, jnp.ones_like(position[:, :1], bool)], axis=1)
  last = jax.lax.cummin(jnp.where(later, index, position.shape[1]), axis=1, reverse=True)
  longest = jnp.clip(jnp.take_along_axis(position, last, axis=1), 1, canvas_length)
  lot = jax.random.uniform(key, position.shape)
  of_text = jnp.take_along_axis(lot, run_start(position == 0), axis=1)
  return 1 + jnp.minimum((of_text * longest).astype(position.dtype), longest - 1)


def with_signal(canvases: Frontier, signal: Float[Array, "B L D"]) -> Frontier:
  """Returns the 2L entries of `document_canvases`, with a signal at the noisy ones."""
  clean = jnp.zeros(signal.shape[:2], bool)
  soft = jnp.concatenate([~clean, clean], axis=1)
  vector = jnp.concatenate([signal, jnp.zeros_like(signal)], axis=1)
  return frontier_lib.with_vectors(canvases, vector, soft)
