"""Schedules of absorbing noise: how probable it is that a token is masked at a time.

At time t of 0 to 1 a token is still clean with probability alpha(t), which falls from 1 to 0. The
continuous-time bound weighs the cross-entropy of a masked token by -alpha'(t) / (1 - alpha(t))
(MDLM 2406.07524, eq. 10; MD4 2406.04329, eq. 5). The bound is the same for every schedule; its
variance is not.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Times = Float[Array | np.ndarray, "*T"]


@dataclasses.dataclass(frozen=True)
class NoiseSchedule:
  """The linear schedule, alpha = 1 - t; the others change its functions."""

  def masked(self, t: Times) -> Times:
    """Returns 1 - alpha(t), the probability that a token is masked."""
    return t

  def slope(self, t: Times) -> Times:
    """Returns -alpha'(t)."""
    return jnp.ones_like(t)

  def alpha(self, t: Times) -> Times:
    """Returns the probability that a token is clean."""
    return 1 - self.masked(t)

  def weight(self, t: Times) -> Times:
    """Returns the weight of a masked token's cross-entropy, -alpha' / (1 - alpha)."""
    return self.slope(t) / self.masked(t)


@dataclasses.dataclass(frozen=True)
class Cosine(NoiseSchedule):
  """alpha = 1 - cos(pi/2 (1 - t)) (MD4 2406.04329, sec. 3)."""

  def masked(self, t: Times) -> Times:
    return jnp.sin(jnp.pi / 2 * t)

  def slope(self, t: Times) -> Times:
    return jnp.pi / 2 * jnp.cos(jnp.pi / 2 * t)

  def alpha(self, t: Times) -> Times:
    return 2 * jnp.sin(jnp.pi / 4 * (1 - t)) ** 2  # without cancellation near t = 1


@dataclasses.dataclass(frozen=True)
class Polynomial(NoiseSchedule):
  """alpha = 1 - t^power (MD4 2406.04329, sec. 3)."""

  power: float = 2.0

  def __post_init__(self):
    if not self.power > 0:
      raise ValueError(f"power must be above 0, got {self.power}")

  def masked(self, t: Times) -> Times:
    return t**self.power

  def slope(self, t: Times) -> Times:
    return self.power * t ** (self.power - 1)

  def weight(self, t: Times) -> Times:
    return self.power / t


@dataclasses.dataclass(frozen=True)
class LogLinear(NoiseSchedule):
  """alpha = 1 - (1 - eps) t, so that -log alpha = -log(1 - (1 - eps) t) (MDLM 2406.07524)."""

  eps: float = 1e-3

  def masked(self, t: Times) -> Times:
    return (1 - self.eps) * t

  def slope(self, t: Times) -> Times:
    return jnp.full_like(t, 1 - self.eps)


@dataclasses.dataclass(frozen=True)
class Clipped(NoiseSchedule):
  """A probability of masking that is uniform on [low, high], with the weight 1 / probability.

  BD3-LM (2503.09573, sec. 5) trains with such a window, chosen for a small variance of the loss; it
  is the bound only for the window [0, 1]. LLaDA's form (2502.09992, sec. 2.2) is the window
  [1e-3, 1]. The window [1, 1] masks everything: with blocks of one token the loss is then the exact
  autoregressive one.
  """

  low: float = 1e-3
  high: float = 1.0

  def __post_init__(self):
    if not 0 <= self.low <= self.high <= 1 or not self.high > 0:
      raise ValueError(
        f"the window must be within 0 to 1 and have a part above 0, got {(self.low, self.high)}"
      )

  def masked(self, t: Times) -> Times:
    return self.low + (self.high - self.low) * t

  def slope(self, t: Times) -> Times:
    return jnp.full_like(t, self.high - self.low)

  def weight(self, t: Times) -> Times:
    return 1 / self.masked(t)


SCHEDULES = ("linear", "cosine", "polynomial", "log_linear", "clipped")


def make_schedule(name: str, *, power: float, window: tuple[float, float]) -> NoiseSchedule:
  """Returns a schedule by name: `power` is of the polynomial one and `window` of the clipped one.

  Raises ValueError for a name that is not in SCHEDULES.
  """
  if name not in SCHEDULES:
    raise ValueError(f"schedule {name!r} is not one of: {', '.join(SCHEDULES)}")
  if name == "polynomial":
    return Polynomial(power)
  if name == "clipped":
    if len(window) != 2:
      raise ValueError(f"window must be two numbers, (low, high), got {window}")
    return Clipped(*window)
  return dict(linear=NoiseSchedule, cosine=Cosine, log_linear=LogLinear)[name]()
