"""Tables of infilling: tasks, one row per order; speed, one row per method."""

from collections.abc import Mapping

from mtjax.bench.infill import InfillReport
from mtjax.report.cells import Cells

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


def infilling_table(
  title: str, summaries: Mapping[str, Mapping[str, float | None]], *, of: str = "order"
) -> Cells:
  """Returns a table of `summaries` of `mtjax.evaluate.tasks.run.summary` of one task.

  They are by order, or by what else decides a row (`of`).
  """
  names = list(next(iter(summaries.values())))
  titles = [_COLUMNS[name][0] for name in names]
  rows = []
  for order, figures in summaries.items():
    cells = (figures[name] for name in names)
    both = zip(names, cells, strict=True)
    rows.append((order, *("" if x is None else _COLUMNS[n][1].format(x) for n, x in both)))
  return Cells(title, (of, *titles), rows)


def fill_speed_table(title: str, report: InfillReport) -> Cells:
  """Forward passes, times and log-likelihoods of each method on one set."""
  header = (
    "method", "forwards", "tokens/forward", "ms/token", "speed", "after first pass",
    "-log p sampled", "exact match",
  )  # fmt: skip
  rows = []
  for row in report.rows:
    later = "" if row.speedup_later is None else f"{row.speedup_later:.2f}x"
    error = "" if row.own_error is None else f" ± {row.own_error:.3f}"
    rows.append(
      (
        row.name, f"{row.forwards:.1f}", f"{row.tokens_per_forward:.2f}",
        f"{row.milliseconds:.2f}", f"{row.speedup:.2f}x", later, f"{row.own_nats:.3f}{error}",
        f"{row.exact:.1%}",
      )
    )  # fmt: skip
  whole = (
    f"{title}: {report.targets:.1f} target tokens per text, NLL {report.nats:.3f} nats per token, "
    f"first pass {report.first_milliseconds:.1f} ms"
  )
  return Cells(whole, header, rows)
