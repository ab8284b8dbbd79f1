"""A schedule of masks for each token: GenMD4's state-dependent masking (MD4 2406.04329, sec. 6).

Token v is still clean at time t with probability 1 - t^power[v]: tokens of small powers are masked
early in time, that is, decided late in generation. The bound depends on the powers, unlike on a
schedule that all tokens share, so they can be learned together with the network.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.noising.schedules import Times


def masked_by_token(t: Times, token: Int[Array, "*T"], power: Float[Array, " V"]) -> Times:
  """Returns the probability that each token is masked at its time, t^power[token]."""
  return t ** power[token]


def token_schedule_loss(
  log_probs: Float[Array, "*T V"],
  token: Int[Array, "*T"],
  power: Float[Array, " V"],
) -> Float[Array, "*T"]:
  """Returns t times the bound's integrand of a masked entry, in nats; a clean one's is 0.

  (2406.04329, eq. 11.) A masked token becomes v at the rate r_v = power[v] / t if it is v, and by
  the model at the rate r_v m_v, m its probabilities: the divergence of the two processes is

    -r_x log m_x - r_x + sum over v of r_v m_v.

  With equal powers the last two terms cancel, and it is the cross-entropy with the weight of the
  polynomial schedule. The mean over masks and the integral over t bound -log p(text). The best m
  depends on t, which tells how probable each token is to be masked.
  """
  chosen = jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0]
  rate = power[token]
  return -rate * chosen - rate + jnp.exp(log_probs) @ power


def leave_one_out(
  losses: Float[Array, "2 B"], log_chances: Float[Array, "2 B"]
) -> Float[Array, ""]:
  """Returns a scalar whose gradient is an unbiased one of the mean loss, for two samples of masks.

  `losses` are those of two independent maskings of B texts, and `log_chances` their log-
  probabilities, which depend on the powers (2406.04329, app. F: REINFORCE with leave-one-out). Each
  masking's loss is judged by that of the other one, which is independent of it:

    mean of losses + 1/2 sum over i of stop(loss_i - loss_other) log_chance_i.

  Its value is of no use; only its gradient is.
  """
  advantage = jax.lax.stop_gradient(losses - losses[::-1])
  return jnp.mean(losses) + jnp.mean(advantage * log_chances)


def log_chance_of_masks(
  t: Float[Array, "B L"],
  token: Int[Array, "B L"],
  masked: Bool[Array, "B L"],
  power: Float[Array, " V"],
) -> Float[Array, " B"]:
  """Returns the log-probability of each row's masks, for `leave_one_out`."""
  log_masked = power[token] * jnp.log(t)
  return jnp.sum(jnp.where(masked, log_masked, jnp.log1p(-jnp.exp(log_masked))), axis=1)


def load_powers(file: str, vocab_size: int) -> Float[Array, " V"]:
  """Returns the powers of an .npy file. Raises ValueError unless they are V numbers above 0.

  Raises FileNotFoundError for a file that does not exist.
  """
  powers = np.load(file)
  if powers.shape != (vocab_size,) or not (powers > 0).all():
    raise ValueError(
      f"{file} must hold {vocab_size} powers above 0, one for each token: got the shape "
      f"{powers.shape}"
    )
  return jnp.asarray(powers, jnp.float32)
