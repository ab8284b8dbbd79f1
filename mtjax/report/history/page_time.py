"""The time of a recorded run on a page: by stage, and beside every round."""

import statistics
from collections.abc import Sequence
from html import escape

from mtjax.report.history.numbers import time_by_stage
from mtjax.report.history.picture import milliseconds
from mtjax.report.html.frame import html_table
from mtjax.rounds.history import RoundRecord

_COLORS = 5  # of stages, in page.css


def time_section(history: Sequence[RoundRecord]) -> str:
  """Returns a bar and a table of the time of each stage over all rounds."""
  stages, classes = time_by_stage(history), stage_classes(history)
  total = sum(stage.seconds for stage in stages) or 1.0
  rows = [
    (
      f'<span class="key {classes[stage.name]}"></span>{escape(stage.name)}',
      milliseconds(stage.seconds),
      f"{stage.seconds / total:.0%}",
      milliseconds(stage.median),
    )
    for stage in stages
  ]
  return (
    "<section><h3>Time by stage</h3>"
    + _bar({stage.name: stage.seconds / total for stage in stages}, classes)
    + html_table(("stage", "all rounds", "share", "median round"), rows, raw=4)
    + "<p><small>Without compilation. While a history is kept each stage is a program of its own, "
    "so the sum is more than the time of a run without one.</small></p></section>"
  )


def round_bar(record: RoundRecord, longest: float, classes: dict[str, str]) -> str:
  """Returns the stages of one round as a bar, which is full at `longest` seconds."""
  return _bar({name: value / longest for name, value in record.seconds.items()}, classes)


def full_bar(history: Sequence[RoundRecord]) -> float:
  """Returns the seconds of a full bar: one slow round, as the first ones are, hides no other."""
  all_ = [sum(record.seconds.values()) for record in history]
  return min(max(all_), 3 * statistics.median(all_)) or 1.0


def stage_classes(history: Sequence[RoundRecord]) -> dict[str, str]:
  """Returns the class of each stage in page.css; the prefill, which comes once, has its own."""
  names = [stage.name for stage in time_by_stage(history) if stage.name != "prefill"]
  return {"prefill": "prefill"} | {name: f"s{at % _COLORS}" for at, name in enumerate(names)}


def _bar(shares: dict[str, float], classes: dict[str, str]) -> str:
  parts = "".join(
    f'<i class="{classes[name]}" style="width:{100 * share:.1f}%"></i>'
    for name, share in shares.items()
  )
  return f'<div class="split" aria-hidden="true">{parts}</div>'
