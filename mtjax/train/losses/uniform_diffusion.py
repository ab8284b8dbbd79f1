"""The loss of diffusion with uniform noise, alone (UDLM) or with masks (GIDD)."""

import dataclasses

import jax
import jax.numpy as jnp

from mtjax.diffusion.noising.bound import noisy_token_loss
from mtjax.diffusion.noising.forward import HybridNoise, Noise, UniformNoise, noisy_tokens
from mtjax.diffusion.noising.times import spread_times
from mtjax.diffusion.rows import document_canvas
from mtjax.models import Model, Params
from mtjax.train.losses.masked_diffusion import check_min_time, masked_network, with_ends
from mtjax.train.losses.objective import Batch, Loss, Total


@dataclasses.dataclass(frozen=True)
class UniformDiffusion:
  """Settings of diffusion with uniform noise.

  `noise`: "uniform" (UDLM, linear schedule), or "hybrid" (GIDD), of which `share` tokens are
  uniform at the middle time, with the exponent `gamma`. Times are within `min_time` and
  1 - min_time. `max_weight`: the largest weight of an entry (0: none, which makes it a bound).
  """

  noise: str = "uniform"
  share: float = 0.1
  gamma: float = 1.0
  min_time: float = 1e-3
  max_weight: float = 0.0

  def __post_init__(self):
    self.family()
    check_min_time(self.min_time)
    if self.max_weight < 0:
      raise ValueError(f"max_weight must not be negative, got {self.max_weight}")

  def family(self) -> Noise:
    """Returns the noise. Raises ValueError for another name."""
    if self.noise not in ("uniform", "hybrid"):
      raise ValueError(f"noise must be uniform or hybrid, got {self.noise!r}")
    return UniformNoise() if self.noise == "uniform" else HybridNoise(self.share, self.gamma)


def uniform_diffusion_loss(model: Model, settings: UniformDiffusion) -> Loss:
  """Returns nats per token of the bound of `noisy_token_loss`, the mean over all tokens.

  (UDLM 2412.10193, eq. 15; GIDD 2503.04482, theorem 1.) The model sees no time. Every document has
  its own time, spread over all documents of a batch. Raises ValueError for hybrid noise and a model
  without a mask, or with one of the vocabulary.
  """
  vocab, family = model.config.vocab_size, settings.family()
  mask = masked_network(model).mask_id if settings.noise == "hybrid" else vocab
  if mask < vocab:
    raise ValueError(
      "hybrid noise needs a mask that is no token of the vocabulary: model.extra_names=('mask',) "
      f"instead of model.mask_id={mask}"
    )

  def prepare(batch: Batch, key, step) -> Batch:
    del step
    time_key, noise_key, text_key = jax.random.split(key, 3)
    batch = with_ends(batch, text_key)
    first = (batch["segment"] > 0) & (batch["position"] == 0)
    low = settings.min_time
    t = spread_times(time_key, first, low=low, high=1 - low)
    noisy = noisy_tokens(noise_key, batch["tokens"], family.at(t), vocab_size=vocab, mask=mask)
    return {**batch, "noisy": noisy, "time": t}

  def total(params: Params, batch: Batch) -> Total:
    token, valid = batch["tokens"], batch["segment"] > 0
    logits = model.forward(params, document_canvas(batch["noisy"], batch["segment"])).logits
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    nats = noisy_token_loss(
      log_probs, token, batch["noisy"], family.at(batch["time"]), max_weight=settings.max_weight
    )
    return Total(jnp.sum(jnp.where(valid, nats, 0.0)), jnp.sum(valid).astype(jnp.float32))

  return Loss(total, prepare)
