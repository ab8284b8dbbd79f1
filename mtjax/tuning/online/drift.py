"""How measured times differ from predicted ones, learned while a program runs."""

import dataclasses
import math
from collections.abc import Mapping

from mtjax.tuning.profiles.latency import LatencyCurve

# A single round teaches at most so much: hosts pause, and first rounds compile.
_LARGEST = math.log(1.5)


@dataclasses.dataclass(frozen=True)
class TimeFactor:
  """The logarithm of measured over predicted time, as the mean of some rounds."""

  log: float
  rounds: int


@dataclasses.dataclass(frozen=True)
class TimeDrift:
  """Measured over predicted time by drafter, batch and entries.

  What has not been tried for long drifts to the factor of what is tried, so that it is tried again
  some day.
  """

  # By (drafter or None for plain decoding, batch of the curve), then by entries per row.
  factors: Mapping[tuple[str | None, int], Mapping[int, TimeFactor]] = dataclasses.field(
    default_factory=dict
  )

  def observe(
    self,
    drafter: str | None,
    batch: int,
    entries: int,
    ratio: float,
    *,
    memory: float,
    forget: float,
  ) -> "TimeDrift":
    """Returns the drift after a round that took `ratio` times as long as predicted.

    memory: weight of a round in the running mean; the first ones weigh more. forget: the share by
    which other factors approach this one. Raises ValueError for a ratio that is not above 0.
    """
    if not 0 < ratio < math.inf:
      raise ValueError(f"measured over predicted time must be above 0, got {ratio}")
    key = drafter, batch
    known = self.factors.get(key, {}).get(
      entries, TimeFactor(self._guess(drafter, batch, entries), 1)
    )
    step = min(max(math.log(ratio) - known.log, -_LARGEST), _LARGEST)
    now = known.log + max(memory, 1 / (known.rounds + 1)) * step
    factors = {
      other: {
        size: TimeFactor(one.log + forget * (now - one.log), one.rounds)
        for size, one in sizes.items()
      }
      for other, sizes in self.factors.items()
    }
    factors[key] = {**factors.get(key, {}), entries: TimeFactor(now, known.rounds + 1)}
    return TimeDrift(factors)

  def correct(self, curve: LatencyCurve, drafter: str) -> LatencyCurve:
    """Returns the curve of a drafter with the factors that are known for it."""
    plain = math.exp(self._guess(None, curve.batch, 1))
    known = self._nearest(drafter, curve.batch)
    return curve.corrected({size: math.exp(one.log) for size, one in known.items()}, plain)

  def _guess(self, drafter: str | None, batch: int, entries: int) -> float:
    """Returns what is known of the nearest size; 0, as predicted, where nothing is."""
    known = self._nearest(drafter, batch)
    if not known:
      return 0.0
    return known[min(known, key=lambda size: abs(math.log(size / entries)))].log

  def _nearest(self, drafter: str | None, batch: int) -> Mapping[int, TimeFactor]:
    batches = [other for name, other in self.factors if name == drafter]
    if not batches:
      return {}
    return self.factors[drafter, min(batches, key=lambda other: abs(math.log(other / batch)))]
