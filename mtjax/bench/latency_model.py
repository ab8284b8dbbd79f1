"""A model of the time of a step over its entries: flat while bound by memory, then a line."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Latency:
  """t(T) = max(flat, start + each * T) seconds."""

  flat: float
  start: float
  each: float  # seconds per entry past the knee; 0: flat as far as was measured
  worst: float  # |fitted - measured| / measured at the worst point

  def __call__(self, entries: ArrayLike) -> np.ndarray:
    return np.maximum(self.flat, self.start + self.each * np.asarray(entries, float))

  @property
  def knee(self) -> float:
    """Returns the number of entries up to which one more is free; infinite if no end was seen."""
    return (self.flat - self.start) / self.each if self.each > 0 else np.inf

  def figures(self) -> dict[str, float | None]:
    """Returns the model as JSON values: as JSON has no infinity, an infinite knee is None."""
    knee = float(self.knee) if np.isfinite(self.knee) else None
    return dataclasses.asdict(self) | dict(knee=knee)


def fitted(entries: Sequence[int], seconds: Sequence[float]) -> Latency:
  """Returns the model whose relative errors have the least sum of squares.

  Every split of the points into first ones for the flat part and others for the line is tried, each
  fitted by itself; the model is then judged by the maximum of both at all points. Raises ValueError
  for fewer than three points, or points that are not in order.
  """
  x, y = np.asarray(entries, float), np.asarray(seconds, float)
  if len(x) < 3 or len(x) != len(y) or np.any(np.diff(x) <= 0) or np.any(y <= 0):
    raise ValueError(f"entries must be three or more rising numbers with seconds, got {entries}")
  models = []
  for split in range(1, len(x) + 1):
    flat = _weighted(np.ones((split, 1)), y[:split])[0]
    start = each = 0.0
    if split < len(x) - 1:
      columns = np.stack([np.ones(len(x) - split), x[split:]], axis=1)
      start, each = _weighted(columns, y[split:])
    elif split == len(x) - 1:
      each = (y[-1] - flat) / (x[-1] - x[-2])  # one point past the knee: from the last flat one
      start = y[-1] - each * x[-1]
    if each < 0 or split == len(x):
      start = each = 0.0
    model = Latency(*map(float, (flat, start, each)), 0.0)
    off = model(x) / y - 1
    models.append(
      (float(np.sum(off**2)), split, dataclasses.replace(model, worst=float(abs(off).max())))
    )
  return min(models, key=lambda one: one[:2])[2]


def _weighted(columns: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns the least squares solution for relative errors."""
  return np.linalg.lstsq(columns / y[:, None], np.ones(len(y)), rcond=None)[0]
