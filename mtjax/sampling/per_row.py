"""Settings that are one number, or one number per row."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def per_row(setting: Any, batch: int, name: str) -> list[Any]:
  """Returns the values of a setting, one per row.

  Raises ValueError, with the setting's name, if it has another number of values than rows.
  """
  values = list(setting) if np.ndim(setting) else [setting] * batch
  if len(values) != batch:
    raise ValueError(f"{name} has {len(values)} values for a batch of {batch} rows")
  return values


def check_range(
  values: Sequence[Any],
  name: str,
  *,
  low: float | None = None,
  high: float | None = None,
  open_low: bool = False,
) -> None:
  """Raises ValueError, with the setting's name, for a value out of its range, or NaN."""
  for value in values:
    # Written so that a NaN, for which every comparison is false, is refused too.
    fits = value == value and (low is None or value > low or (value == low and not open_low))
    if not fits or (high is not None and value > high):
      bound = f"{'above' if open_low else 'at least'} {low}" if low is not None else "a number"
      raise ValueError(f"{name} must be {bound}{f', at most {high}' if high else ''}: got {value}")
