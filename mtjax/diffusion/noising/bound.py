"""The bound of a noisy token for masks, uniform tokens and mixtures of them, in one formula."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.diffusion.noising.forward import NoiseAt


def noisy_token_loss(
  log_probs: Float[Array, "*T V"],
  token: Int[Array, "*T"],
  noisy: Int[Array, "*T"],
  at: NoiseAt,
  *,
  max_weight: float = 0.0,
) -> Float[Array, "*T"]:
  """Returns w [KL(q_t(. | x) || q_t(. | x')) + r - log r - 1] per entry, in nats.

  (GIDD 2503.04482, theorem 1.) x is the token, x' its predicted distribution, q_t(. | x') the mean
  of q_t under it, z the noisy token, r = q_t(z | x) / q_t(z | x'), and the weight is
  w = (rate of jumps to z) / q_t(z | x). The mean over z and the integral over t bound -log p(x).
  With GIDD's noise w is 1 / (t (1 - t)) at a mask, and its two other weights at a token. With
  uniform noise it is UDLM's bound (2412.10193, eq. 15), since -alpha' / (N alpha q_t(z | x)) = w,
  and with masks only it is -alpha' / (1 - alpha) times the cross-entropy. Ids of `noisy` that are V
  or more are masks. With uniform tokens the best x' is not the posterior given z: it is what the
  other entries say of x, without z itself. `max_weight`: the largest weight in training (0: none);
  with one, the sum is no bound.
  """
  vocab = log_probs.shape[-1]
  floor = at.uniform / vocab
  is_mask = noisy >= vocab
  tiny = jnp.finfo(log_probs.dtype).tiny
  q = at.alpha[..., None] * jax.nn.one_hot(token, vocab, dtype=log_probs.dtype) + floor[..., None]
  # log(alpha x' + floor): without uniform noise it is log alpha + log x', without underflow.
  log_alpha = jnp.log(jnp.maximum(at.alpha, tiny))[..., None]
  log_floor = jnp.where(floor > 0, jnp.log(jnp.maximum(floor, tiny)), -jnp.inf)[..., None]
  log_predicted = jnp.logaddexp(log_alpha + log_probs, log_floor)
  log_q = jnp.log(jnp.maximum(q, tiny))
  divergence = jnp.sum(jnp.where(q > 0, q * (log_q - log_predicted), 0), axis=-1)

  def chosen(values):
    index = jnp.where(is_mask, 0, noisy)[..., None]
    return jnp.take_along_axis(values, index, axis=-1)[..., 0]

  # A token that no noise makes is the token itself: alpha x' is then not 0 either.
  log_ratio = jnp.where(is_mask, 0.0, chosen(log_q) - chosen(log_predicted))
  mask_weight = at.mask_rate / jnp.maximum(at.mask, tiny)
  token_weight = at.uniform_rate / vocab / jnp.maximum(chosen(q), tiny)
  weight = jnp.where(is_mask, mask_weight, token_weight)
  weight = jnp.minimum(weight, max_weight) if max_weight else weight
  change = jnp.expm1(log_ratio) - log_ratio
  return jnp.where(weight > 0, weight * (divergence + change), 0.0)
