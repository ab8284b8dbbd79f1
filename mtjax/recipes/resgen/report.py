"""The table of the experiment."""

from collections.abc import Sequence
from typing import Any

from mtjax.report.cells import Cells


def table(title: str, rows: Sequence[dict[str, Any]]) -> Cells:
  """Returns the table of `ResGenOutcome.rows`."""

  def cells(row):
    passes = "" if row["forwards"] is None else str(row["forwards"])
    seconds = "" if row["seconds"] is None else f"{row['seconds']:.2f}"
    return [
      row["name"],
      passes,
      f"{100 * row['accuracy']:.1f} %",
      f"{row['distance']:.1f}",
      seconds,
      str(row["rows"]),
    ]

  header = ["made by", "passes", "class accuracy", "Frechet distance", "seconds", "rows"]
  return Cells(title, header, [cells(row) for row in rows])
