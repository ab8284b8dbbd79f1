"""Tables of answered tasks: one per task, with one row per method."""

from collections.abc import Mapping
from typing import Any

from mtjax.report.cells import Cells


def quality_table(
  title: str,
  measure: str | None,
  summaries: Mapping[str, Mapping[str, Any]],
  exactness: Mapping[str, str],
) -> Cells:
  """Returns the table of `summaries` of `mtjax.evaluate.answers.summary`, by method.

  `measure` names the score; its columns are missing for None.
  """
  score = [] if measure is None else [measure, "95 % interval"]
  costs = ["tokens", "tokens/forward", "tokens/s", "same text as ar"]
  rows = []
  for name, figures in summaries.items():
    cells = [] if measure is None else [*_score(figures)]
    cells += [
      f"{figures['tokens']:.1f}",
      f"{figures['tokens_per_forward']:.2f}",
      f"{figures['tokens_per_second']:.1f}",
      # Rounded down: only text that is the same everywhere is shown as 100 %.
      f"{int(figures['same_text'] * 1000) / 10:.1f}%",
    ]
    rows.append((name, exactness[name], *cells))
  return Cells(title, ("method", "exactness", *score, *costs), rows)


def _score(figures: Mapping[str, Any]) -> tuple[str, str]:
  low, high = figures["interval"]
  return f"{figures['score']:.1%}", f"{low:.1%} to {high:.1%}"
