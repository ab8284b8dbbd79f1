"""The forward process of noise: masks, uniform tokens, or both.

A token x has at time t the distribution q_t(. | x) = alpha x + mask M + uniform U, where M is the
mask and U is uniform over the N tokens of the vocabulary. Where a token jumps, it jumps to the mask
at the rate `mask_rate` and to each token at the rate `uniform_rate` / N, whatever it was, so that
rate = (share)' - alpha' / alpha * share for both shares.
"""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mtjax.diffusion.noising.schedules import NoiseSchedule, Times


class NoiseAt(NamedTuple):
  """Shares and rates of noise at some times; alpha + mask + uniform = 1."""

  alpha: Times
  mask: Times
  uniform: Times
  mask_rate: Times
  uniform_rate: Times


@runtime_checkable
class Noise(Protocol):
  """A family of noise: its shares and rates at every time within 0 to 1, without the ends."""

  def at(self, t: Times, /) -> NoiseAt:
    """Returns shares and rates at times t."""
    ...


@dataclasses.dataclass(frozen=True)
class AbsorbingNoise:
  """Masks only (MDLM 2406.07524)."""

  schedule: NoiseSchedule = NoiseSchedule()

  def at(self, t: Times) -> NoiseAt:
    """Returns shares and rates at times t."""
    alpha, zero = self.schedule.alpha(t), jnp.zeros_like(t)
    return NoiseAt(alpha, self.schedule.masked(t), zero, self.schedule.slope(t) / alpha, zero)


@dataclasses.dataclass(frozen=True)
class UniformNoise:
  """Uniform tokens only (UDLM 2412.10193, sec. 3)."""

  schedule: NoiseSchedule = NoiseSchedule()

  def at(self, t: Times) -> NoiseAt:
    """Returns shares and rates at times t."""
    alpha, zero = self.schedule.alpha(t), jnp.zeros_like(t)
    return NoiseAt(alpha, zero, self.schedule.masked(t), zero, self.schedule.slope(t) / alpha)


@dataclasses.dataclass(frozen=True)
class HybridNoise:
  """Masks and uniform tokens (GIDD 2503.04482, sec. 3).

  B = 2^gamma p / (1 - p), c = B (t (1 - t))^(gamma / 2) and C = 1 + c. The shares are
  alpha = (1 - t) / C, mask = t / C and uniform = c / C: a share p of uniform tokens at t = 1/2.
  """

  share: float = 0.1  # p
  gamma: float = 1.0

  def __post_init__(self):
    if not 0 <= self.share < 1:
      raise ValueError(f"share must be from 0 to below 1, got {self.share}")
    if not 0 < self.gamma <= 2:
      raise ValueError(f"gamma must be above 0 and at most 2, got {self.gamma}")

  def at(self, t: Times) -> NoiseAt:
    """Returns shares and rates at times t."""
    c = 2**self.gamma * self.share / (1 - self.share) * (t * (1 - t)) ** (self.gamma / 2)
    slope = self.gamma / 2 * (1 - 2 * t) / (t * (1 - t)) * c
    total = 1 + c
    to_mask = 1 / (total * (1 - t))
    to_uniform = (c + (1 - t) * slope) / (total * (1 - t))
    return NoiseAt((1 - t) / total, t / total, c / total, to_mask, to_uniform)


def mask_tokens(
  key: PRNGKeyArray,
  is_open: Bool[Array, "B L"],
  probability: Float[Array, "B L"],
) -> Bool[Array, "B L"]:
  """Samples which of the `is_open` entries are masked, each independently of the others."""
  return is_open & (jax.random.uniform(key, is_open.shape) < probability)


def noisy_tokens(
  key: PRNGKeyArray, token: Int[Array, "B L"], at: NoiseAt, *, vocab_size: int, mask: int
) -> Int[Array, "B L"]:
  """Samples z of q_t(. | token), entry by entry. A uniform token may be the token itself."""
  choice_key, token_key = jax.random.split(key)
  lot = jax.random.uniform(choice_key, token.shape)
  other = jax.random.randint(token_key, token.shape, 0, vocab_size, token.dtype)
  return jnp.where(lot < at.mask, mask, jnp.where(lot < at.mask + at.uniform, other, token))
