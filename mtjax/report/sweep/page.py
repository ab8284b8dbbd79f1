"""A sweep as one HTML page that needs nothing else: its table, its plot and its runs."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mtjax.report.html.frame import HtmlPage, html_figure, html_table, html_tiles, make_page
from mtjax.report.sweep import picture, table
from mtjax.report.sweep.groups import grouped, short_names, shown_values, varied


def page(name: str, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> HtmlPage:
  """Returns the page of a sweep's runs, which are lines of results.jsonl.

  Runs that have not finished are counted and listed. The page has no plot without matplotlib, and
  none before a run has finished; it says why.
  """
  made = table.table(name, rows, metrics)
  # The table's cells are those of a page of Markdown, where "|" is written so.
  cells = [[cell.replace("\\|", "|") for cell in row] for row in made.rows]
  finished = sum(row["state"] == "finished" for row in rows)
  body = [
    html_tiles([(f"{finished} of {len(rows)}", "runs finished"), (str(len(cells)), "settings")]),
    f'<p class="dim">{escape(made.title)}</p>',
    html_table(made.header, cells),
    _plot(name, rows, metrics),
    _runs(rows, metrics),
  ]
  return make_page(f"Sweep {name}", body)


def _plot(name, rows, metrics) -> str:
  try:
    return html_figure(picture.figure(name, rows, metrics), "each metric over the swept values")
  except (ModuleNotFoundError, ValueError) as error:
    return f'<p class="dim">No plot: {escape(str(error))}</p>'


def _runs(rows, metrics) -> str:
  """Returns a table of the single runs, in an element that is opened by a click."""
  names = varied(grouped(rows))
  columns = [shown_values([row["settings"] for row in rows], flag) for flag in names]
  lines = [
    (
      str(row.get("run", place)),
      *(column[place] for column in columns),
      str(row["seed"]),
      row["state"],
      *(_metric(row["metrics"].get(metric)) for metric in metrics),
    )
    for place, row in enumerate(rows)
  ]
  header = ("run", *(short_names(names)[flag] for flag in names), "seed", "state", *metrics)
  return f"<details><summary>All runs</summary>{html_table(header, lines)}</details>"


def _metric(value: float | None) -> str:
  return "-" if value is None else f"{value:.6g}"
