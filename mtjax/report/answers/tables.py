"""Tables of answered tasks: one per task, with one row per method."""

from collections.abc import Mapping
from typing import Any

from mtjax.evaluate.answers.methods import REFERENCE
from mtjax.report.cells import Cells


def quality_table(
  title: str,
  measure: str | None,
  summaries: Mapping[str, Mapping[str, Any]],
  exactness: Mapping[str, str],
  *,
  reference: str = REFERENCE,
) -> Cells:
  """Returns the table of `summaries` of `mtjax.evaluate.answers.summary`, by method.

  `measure` names the score; its columns are missing for None. `reference` is the method whose text
  the others are compared with. Perplexity and entropy of the answers are shown side by side, or
  neither of them.
  """
  score = [] if measure is None else [measure, "95 % interval"]
  costs = ["tokens", "tokens/forward", "tokens/s", f"same text as {reference}"]
  quality = ["gen. perplexity", "entropy"]
  quality = quality if any("entropy" in figures for figures in summaries.values()) else []
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
    cells += _quality(figures) if quality else []
    rows.append((name, exactness[name], *cells))
  return Cells(title, ("method", "exactness", *score, *costs, *quality), rows)


def _quality(figures: Mapping[str, Any]) -> tuple[str, str]:
  perplexity, entropy = figures["perplexity"], figures["entropy"]
  return ("", "") if entropy is None else (f"{perplexity:.1f}", f"{entropy:.2f}")


def _score(figures: Mapping[str, Any]) -> tuple[str, str]:
  low, high = figures["interval"]
  return f"{figures['score']:.1%}", f"{low:.1%} to {high:.1%}"
