"""A time that does not fall with the amount of work, fitted to measured points."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from mtjax.tuning.profiles.isotonic import isotonic


@dataclasses.dataclass(frozen=True)
class MonotoneFit:
  """Seconds by an amount: the median of what was measured, and a fit that never falls."""

  amount: tuple[int, ...]  # rising
  measured: tuple[float, ...]  # median seconds of each amount
  fitted: tuple[float, ...]

  def __call__(self, amount: ArrayLike) -> Float[np.ndarray, "..."]:
    """Returns the fitted seconds, on a line between neighbouring amounts.

    Raises ValueError for an amount outside of those measured.
    """
    wanted = np.asarray(amount, float)
    if wanted.size and not self.amount[0] <= wanted.min() <= wanted.max() <= self.amount[-1]:
      raise ValueError(
        f"times are known for {self.amount[0]} to {self.amount[-1]}, got "
        f"{wanted.min():g} to {wanted.max():g}: measure further"
      )
    return np.asarray(np.interp(wanted, self.amount, self.fitted))

  @property
  def errors(self) -> tuple[float, ...]:
    """The relative error of the fit at each amount: (fitted - measured) / measured."""
    return tuple(fit / seen - 1 for fit, seen in zip(self.fitted, self.measured, strict=True))

  @property
  def worst(self) -> float:
    """The largest of the errors, without sign."""
    return max(map(abs, self.errors))


def fit_monotone(points: Sequence[tuple[int, float]]) -> MonotoneFit:
  """Returns the fit to points (amount, seconds); an amount may be there several times.

  Of several times of one amount the median counts, so that a disturbed one does no harm. The fit is
  isotonic regression: among all functions that do not fall, the one with the least sum of squared
  relative errors. Raises ValueError for no point, an amount below 0 and seconds that are not above
  0.
  """
  if not points:
    raise ValueError("a time needs at least one measured point")
  by_amount: dict[int, list[float]] = {}
  for amount, seconds in points:
    if amount < 0 or not 0 < seconds < np.inf:
      raise ValueError(
        f"a point is an amount of at least 0 and seconds above 0, got ({amount}, {seconds})"
      )
    by_amount.setdefault(int(amount), []).append(float(seconds))
  amounts = sorted(by_amount)
  measured = np.array([np.median(by_amount[amount]) for amount in amounts])
  fitted = isotonic(measured, measured**-2.0)
  return MonotoneFit(tuple(amounts), tuple(measured.tolist()), tuple(fitted.tolist()))
