"""The picture of a sweep: each metric over the swept values, its mean and interval over seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.report import plotting
from mtjax.report.sweep.groups import Group, grouped, short_names, shown_values, varied

_MAX_PANELS = 3
_MAX_LABELS = 8
_LONG_LABEL = 32
_MAX_INSIDE = 4  # lines whose legend is within a panel
_DECADE = 10.0


def figure(name: str, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Any:
  """Returns a matplotlib figure with a panel for each of the first three metrics.

  `rows` are lines of results.jsonl. The horizontal axis is the flag that takes the largest number
  of different numbers, or the first flag where none takes numbers; every combination of the other
  flags is a line. Bars are 95 % intervals, pale points single runs. The axis is logarithmic for
  positive values that span a factor of ten. Raises ModuleNotFoundError, naming the extra, without
  matplotlib, and ValueError without a finished run.
  """
  groups = [group for group in grouped(rows) if group.finished()]
  if not groups or not metrics:
    raise ValueError("no run has finished: there is nothing to draw")
  names = varied(grouped(rows))
  axis = swept_axis(names, groups)
  lines = _lines(names, axis, groups)
  metrics = metrics[:_MAX_PANELS]
  drawn = plotting.new_figure(figsize=(4.6 * len(metrics) + 0.8, 4.2), layout="constrained")
  panels = drawn.subplots(1, len(metrics), squeeze=False)[0]
  for panel, metric in zip(panels, metrics, strict=True):
    _panel(panel, axis, lines, metric)
    panel.set(title=metric, xlabel=short_names(names).get(axis, ""))
  if len(lines) > 1:
    others = ", ".join(short for flag, short in short_names(names).items() if flag != axis)
    style: dict[str, Any] = dict(title=others, fontsize=8, title_fontsize=8)
    if len(lines) > _MAX_INSIDE:
      # Below the panels: within one it would cover its lines.
      entries = panels[0].get_legend_handles_labels()
      drawn.legend(*entries, loc="outside lower center", ncols=_MAX_INSIDE, **style)
    else:
      panels[0].legend(**style)
  drawn.suptitle(f"{name}: {_shown_over(groups)}", fontsize=11)
  return drawn


def swept_axis(names: Sequence[str], groups: Sequence[Group]) -> str:
  """Returns the flag of the horizontal axis; "" if no flag varies."""

  def numbers(name: str) -> int:
    values = {group.settings.get(name) for group in groups}
    return len(values) if all(map(_is_number, values)) else 0

  return max(names, key=numbers, default="")


def is_logarithmic(values: Sequence[Any]) -> bool:
  """Returns whether values are positive numbers that span a factor of ten."""
  if not values or not all(_is_number(value) and value > 0 for value in values):
    return False
  return max(values) >= _DECADE * min(values) * (1 - 1e-9)


def _shown_over(groups: Sequence[Group]) -> str:
  counts = sorted({len(group.finished()) for group in groups})
  if counts == [1]:
    return "one run per setting"
  over = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
  return f"mean and 95 % interval over {over} runs"


def _lines(names, axis: str, groups: Sequence[Group]) -> dict[str, list[Group]]:
  lines: dict[str, list[Group]] = {}
  settings = [group.settings for group in groups]
  columns = [shown_values(settings, name) for name in names if name != axis]
  for place, group in enumerate(groups):
    lines.setdefault(", ".join(column[place] for column in columns), []).append(group)
  return lines


def _panel(panel, axis: str, lines: Mapping[str, Sequence[Group]], metric: str) -> None:
  values = list(
    dict.fromkeys(group.settings.get(axis, "-") for line in lines.values() for group in line)
  )
  numeric = bool(axis) and all(map(_is_number, values))
  places = {value: value if numeric else place for place, value in enumerate(values)}
  logarithmic = numeric and is_logarithmic(values)
  for number, (label, line) in enumerate(lines.items()):
    color = f"C{number % 10}"
    points = [
      (places[group.settings.get(axis, "-")], one)
      for group in line
      if (one := group.interval(metric)) is not None
    ]
    if numeric:
      points.sort(key=lambda point: point[0])
    xs = [x for x, _ in points]
    for x, one in points:
      panel.plot([x] * len(one.values), one.values, "o", color=color, alpha=0.35, markersize=4)
    panel.errorbar(
      xs,
      [one.mean for _, one in points],
      # nan draws no bar: a single run has no interval.
      yerr=[math.nan if one.half is None else one.half for _, one in points],
      fmt="o-" if numeric else "o",
      color=color,
      capsize=4,
      label=label,
    )
  if logarithmic:
    panel.set_xscale("log")
  if not numeric or len(values) <= _MAX_LABELS:
    labels = shown_values([{axis: value} for value in values], axis) if axis else [""] * len(values)
    upright = dict(rotation=90, fontsize=6) if max(map(len, labels)) > _LONG_LABEL else {}
    panel.set_xticks([places[value] for value in values], labels, **upright)
    panel.minorticks_off()
  if not numeric:
    panel.set_xlim(-0.5, len(values) - 0.5)
    panel.tick_params(axis="x", rotation=20 if any(len(str(v)) > 8 for v in values) else 0)
  panel.margins(x=0.12)
  panel.ticklabel_format(axis="y", useOffset=False)
  panel.grid(True, alpha=0.2)


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
