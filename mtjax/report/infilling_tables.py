"""Figures of infilling tasks, one row per order."""

from collections.abc import Mapping

from rich import box
from rich.table import Table

# Figure -> (title, format). Likelihoods are in nats, entropies in bits.
_COLUMNS = {
  "examples": ("examples", "{:d}"),
  "nats": ("NLL per token", "{:.3f}"),
  "exact": ("exact match", "{:.1%}"),
  "tokens_per_forward": ("tokens/forward", "{:.2f}"),
  "pass_at_1": ("pass@1", "{:.1%}"),
  "timed_out": ("timed out", "{:.1%}"),
  "reference_passes": ("reference passes", "{:.1%}"),
  "solved": ("solved", "{:.1%}"),
  "right_cells": ("right cells", "{:.1%}"),
  "generative_perplexity": ("gen. perplexity", "{:.1f}"),
  "entropy": ("entropy", "{:.2f}"),
  "reference_perplexity": ("of the original", "{:.1f}"),
  "reference_entropy": ("its entropy", "{:.2f}"),
}


def infilling_table(title: str, summaries: Mapping[str, Mapping[str, float | None]]) -> Table:
  """Returns a table of `summaries` of `mtjax.evaluate.tasks.run.summary`, by order, of one task."""
  names = list(next(iter(summaries.values())))
  titles = [_COLUMNS[name][0] for name in names]
  table = Table("order", *titles, title=title, title_justify="left", box=box.SIMPLE_HEAD)
  for order, figures in summaries.items():
    cells = (figures[name] for name in names)
    table.add_row(
      order,
      *("" if x is None else _COLUMNS[n][1].format(x) for n, x in zip(names, cells, strict=True)),
    )
  return table
