"""Runs of a sweep that differ in their seed alone, with means and intervals of their metrics."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

_LEVEL = 0.95
_FIELD = "config."  # what the flag of a config field begins with


@dataclasses.dataclass(frozen=True)
class Interval:
  """The mean of n values, and half the width of its 95 % interval; None for a single value."""

  mean: float
  half: float | None
  values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Group:
  """The runs of one setting. `rows` are lines of results.jsonl, of any state."""

  settings: Mapping[str, Any]
  rows: Sequence[Mapping[str, Any]]

  def finished(self) -> list[Mapping[str, Any]]:
    return [row for row in self.rows if row["state"] == "finished"]

  def values(self, metric: str) -> list[float]:
    """Returns the metric of every finished run that has it; None in the file is nan here."""
    found = [row["metrics"][metric] for row in self.finished() if metric in row["metrics"]]
    return [math.nan if value is None else value for value in found]

  def interval(self, metric: str) -> Interval | None:
    """Returns the mean over seeds; None where a value is missing or no finite number."""
    values = self.values(metric)
    return interval(values) if values and all(map(math.isfinite, values)) else None


def interval(values: Sequence[float]) -> Interval:
  """Returns mean +- t s / sqrt(n), where t is the 97.5 % quantile of Student's t (n - 1 degrees).

  s is the standard deviation with n - 1 in its denominator. The interval is exact for values that
  are normally distributed and independent.
  """
  n, mean = len(values), statistics.fmean(values)
  if n == 1:
    return Interval(mean, None, tuple(values))
  from scipy.special import stdtrit

  quantile = float(stdtrit(n - 1, (1 + _LEVEL) / 2))
  return Interval(mean, quantile * statistics.stdev(values) / math.sqrt(n), tuple(values))


def grouped(rows: Sequence[Mapping[str, Any]]) -> list[Group]:
  """Returns the groups of equal settings, in the order of their first runs."""
  groups: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]] = []
  for row in rows:
    for settings, members in groups:
      if settings == row["settings"]:
        members.append(row)
        break
    else:
      groups.append((row["settings"], [row]))
  return [Group(*one) for one in groups]


def varied(groups: Sequence[Group]) -> list[str]:
  """Returns the flags whose values differ between groups, a missing one being a value too."""
  names = dict.fromkeys(name for group in groups for name in group.settings)
  first = groups[0].settings if groups else {}
  return [
    name
    for name in names
    if any(
      name not in group.settings or group.settings[name] != first.get(name) for group in groups
    )
  ]


def short_names(names: Sequence[str]) -> dict[str, str]:
  """Returns the last part of each flag's name, or the whole where two would be the same."""
  last = {name: name.rpartition(".")[2] for name in names}
  return {
    name: short if list(last.values()).count(short) == 1 else name.removeprefix(_FIELD)
    for name, short in last.items()
  }


def shown_value(value: Any) -> str:
  """Returns a setting's value on one line; long texts are cut."""
  text = _on_one_line(value)
  return text if len(text) <= 32 else f"{text[:31]}…"


def shown_values(settings: Sequence[Mapping[str, Any]], name: str) -> list[str]:
  """Returns a setting's values as texts, "-" where there is none.

  They are cut as `shown_value` does, unless two different ones would then look the same.
  """
  values = [value.get(name, "-") for value in settings]
  whole = [_on_one_line(value) for value in values]
  cut = [shown_value(value) for value in values]
  return cut if len(set(cut)) == len(set(whole)) else whole


def _on_one_line(value: Any) -> str:
  return f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
