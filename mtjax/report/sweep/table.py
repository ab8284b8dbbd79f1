"""The table of a sweep: one line per setting, means over seeds with their intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.report.cells import Cells
from mtjax.report.sweep.groups import Group, Interval, grouped, short_names, shown_values, varied


def table(name: str, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Cells:
  """Returns the table of a sweep's runs, which are lines of results.jsonl.

  A cell is "mean ± half the width of the 95 % interval", the mean alone for one run, "diverged"
  with a count where values are not finite, and "-" where there are none. n counts finished runs.
  """
  groups = grouped(rows)
  names = varied(groups)
  short = short_names(names)
  columns = [shown_values([group.settings for group in groups], name) for name in names]
  lines = [
    (
      *(column[place].replace("|", "\\|") for column in columns),
      _count(group),
      *(cell(group, metric) for metric in metrics),
    )
    for place, group in enumerate(groups)
  ]
  header = (*(short[name] for name in names), "n", *metrics)
  title = f"Sweep {name}: mean ± half of the 95 % interval over n runs (Student's t)"
  return Cells(title, header, lines)


def cell(group: Group, metric: str) -> str:
  """Returns the text of one cell, with two digits of the interval."""
  one, values = group.interval(metric), group.values(metric)
  if one is not None:
    return shown(one)
  lost = sum(not math.isfinite(value) for value in values)
  return f"diverged ({lost} of {len(values)})" if lost else "-"


def shown(one: Interval) -> str:
  if one.half is None:
    return f"{one.mean:.4g}"
  if one.half == 0:
    return f"{one.mean:.4g} ± 0"
  digits = max(1 - math.floor(math.log10(one.half)), 0)
  return f"{one.mean:,.{digits}f} ± {one.half:,.{digits}f}"


def _count(group: Group) -> str:
  done, all_ = len(group.finished()), len(group.rows)
  return str(done) if done == all_ else f"{done} of {all_}"
