"""Tables of plans beside settings that were chosen by hand."""

from collections.abc import Sequence

from mtjax.bench.planning.auto import AUTO, PLAIN, PlanCells, median_error
from mtjax.report.cells import Cells

_HEADER = (
  "setting", "tokens/s", "over plain decoding", "predicted, tokens/s", "error of the prediction",
)  # fmt: skip


def comparison_tables(found: Sequence[PlanCells]) -> list[Cells]:
  """Returns a summary of all models and batch sizes, and a table of the settings of each."""
  rows = []
  for group in found:
    auto, best = group.get(AUTO), group.best
    error = median_error(group.cells)
    rows.append(
      (
        f"{auto.model}, batch {auto.batch}",
        auto.choice,
        f"{auto.speed:.1f}",
        best.setting,
        f"{best.speed:.1f}",
        f"{group.share(best):.3f}",
        f"{group.share(group.get(PLAIN)):.3f}",
        "" if error is None else f"{100 * error:.1f} %",
      )
    )
  header = (
    "", "plan", "auto, tokens/s", "best setting", "its tokens/s", "auto over it",
    "auto over plain decoding", "median error of predictions",
  )  # fmt: skip
  return [Cells("auto and the best setting chosen by hand", header, rows), *map(_each, found)]


def comparison_notes(found: Sequence[PlanCells]) -> list[str]:
  """Returns sentences: the worst shares, and the median error over all cells."""
  error = median_error([cell for group in found for cell in group.cells])
  worst = min(found, key=lambda group: group.share(group.best))
  where = worst.get(AUTO)
  out = [
    f"The smallest share of the best setting is {worst.share(worst.best):.3f}, of {where.model} at "
    f"batch {where.batch}; the smallest share of plain decoding is "
    f"{min(group.share(group.get(PLAIN)) for group in found):.3f}."
  ]
  if error is not None:
    out.append(f"The median error of predicted speeds over all settings is {100 * error:.1f} %.")
  return out


def _each(group: PlanCells) -> Cells:
  plain = group.get(PLAIN)
  rows = [
    (
      one.setting,
      f"{one.speed:.1f}",
      f"{one.speed / plain.speed:.3f}",
      "" if one.predicted is None else f"{one.predicted:.1f}",
      "" if one.error is None else f"{100 * one.error:+.1f} %",
    )
    for one in sorted(group.cells, key=lambda one: -one.speed)
  ]
  return Cells(f"{plain.model}, batch {plain.batch}", _HEADER, rows)
