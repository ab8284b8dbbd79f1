"""What a sweep leaves: results.jsonl, table.md and plot.png in its folder, and a page."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mtjax.cli.running import progress
from mtjax.cli.sweep.folder import FAILED, FINISHED, Folder, State
from mtjax.cli.sweep.process import last_lines
from mtjax.cli.sweep.programs import shown_metrics

_LAST_LINES = 8  # of the log of a run that failed


def json_lines(record: Mapping[str, Any]) -> str:
  """Returns one line of JSON per run; numbers that are not finite are null, as JSON has none."""
  return "".join(json.dumps(_finite(row), ensure_ascii=False) + "\n" for row in record["runs"])


def page_of(folder: Folder, metrics: Sequence[str]) -> Callable[[Mapping[str, Any]], str]:
  """Returns a function from the rows of a sweep to its HTML page.

  `metrics` are those of `write_reports`.
  """

  def made(record: Mapping[str, Any]) -> str:
    from mtjax.report.sweep.page import page

    rows = [_finite(row) for row in record["runs"]]
    return page(folder.sweep.name, rows, _metric_names(folder, rows, metrics)).text

  return made


def write_reports(folder: Folder, metrics: Sequence[str]) -> None:
  """Prints the table and writes table.md and plot.png, of the runs that have finished.

  `metrics` are patterns of names; none: those of the program. Without matplotlib there is no plot,
  and a line says so.
  """
  from mtjax.report.sweep import picture, table

  rows = [_finite(row) for row in folder.rows()]
  names = _metric_names(folder, rows, metrics)
  made = table.table(folder.sweep.name, rows, names)
  console = Console()
  console.print(made.for_terminal()) if console.is_terminal else print(made.markdown())
  _replace(folder.path / "table.md", made.markdown() + "\n")
  written = ["results.jsonl", "table.md"]
  try:
    figure = picture.figure(folder.sweep.name, rows, names)
  except (ModuleNotFoundError, ValueError) as error:
    progress(f"no plot: {error}")
  else:
    new = folder.path / ".plot.new.png"
    figure.savefig(new, dpi=120)
    os.replace(new, folder.path / "plot.png")
    written.append("plot.png")
  progress(f"written to {folder.path}: {', '.join(written)}")


def summary(folder: Folder) -> str | None:
  """Prints the end of the log of every run that failed; returns what is unfinished, or None."""
  states = [folder.state(index) for index in range(len(folder.sweep.runs))]
  unfinished = [index for index, state in enumerate(states) if state.state != FINISHED]
  for index in unfinished:
    if states[index].state == FAILED:
      show_failure(folder, index, states[index])
  if not unfinished:
    return None
  named = ", ".join(f"{index} ({states[index].state})" for index in unfinished)
  return f"{len(unfinished)} of {len(states)} runs have not finished: {named}"


def show_failure(folder: Folder, index: int, state: State) -> None:
  """Prints why a run has not finished: its exit code and the last lines of its log."""
  label = folder.sweep.label(index)
  progress(f"\nrun {index} {state.state} ({label}), exit code {state.exit_code}:")
  for line in last_lines(folder.log(index), _LAST_LINES):
    progress(f"  {line}")
  if state.message:
    progress(f"  {state.message}")
  progress(f"  its log: {folder.log(index)}")


def _metric_names(folder: Folder, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]):
  known = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
  return shown_metrics(folder.sweep.program, known, metrics)


def _finite(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {name: _finite(one) for name, one in value.items()}
  return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(path: Path, text: str) -> None:
  new = path.with_name(f".{path.name}.new")
  new.write_text(text, encoding="utf-8")
  os.replace(new, path)
