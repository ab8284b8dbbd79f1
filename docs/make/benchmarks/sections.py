"""Sections of pages, each made of one results file, and the table of all runs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docs.make.benchmarks.runs import RUNS, wrapped
from mtjax.report import results
from mtjax.report.cells import Cells

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "results"
MADE = "made by `python -m docs.make.benchmarks`; a test compares"
# A results file, or the table of runs.
_SECTION = re.compile(rf"<!-- (\S+): {re.escape(MADE)} -->\n(.*?)<!-- end of \1 -->", re.DOTALL)
_RUNS_BY_PATH = {run.path: run for run in RUNS}


def pages() -> list[Path]:
  """Returns the pages that have sections."""
  found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
  return [path for path in found if _SECTION.search(path.read_text(encoding="utf-8"))]


def shown(text: str) -> list[str]:
  """Returns what the sections of a page are made of, in their order."""
  return [match[1] for match in _SECTION.finditer(text)]


def by_hand(text: str) -> str:
  """Returns a page without its sections."""
  return _SECTION.sub("", text)


def with_sections(text: str) -> str:
  """Returns a page with its sections made anew. Raises ValueError for one that nothing makes."""
  return _SECTION.sub(lambda match: _section(match[1]), text)


def section(record: Mapping[str, Any]) -> str:
  """Returns the Markdown of one results file: its tables, what they are of, and its notes."""
  parts = [table.markdown() for table in results.tables(record)]
  parts += [origin(record), f"```\n{_lines(record['command'])}\n```"]
  if limits := record.get("limits"):
    told = "; ".join(f"{name}: {value:,}" for name, value in limits.items())
    parts.append(f"Physical limits, measured in the same run: {told}.")
  if record.get("notes"):
    parts.append("\n".join(f"- {note}" for note in record["notes"]))
  return "\n\n".join(parts)


def origin(record: Mapping[str, Any]) -> str:
  """Returns a paragraph: date, hardware, versions, rounds, and what must be known of the file."""
  hardware, project = record["hardware"], record["project"]
  where = f"{hardware['processor']}, {hardware['cores']} core{'s' * (hardware['cores'] != 1)}"
  if hardware["device"] != "cpu":
    where = f"{hardware['device']} ({where})"
  said = [where]
  if record["rounds"] is not None:
    said.append(f"{record['rounds']} round{'s' * (record['rounds'] != 1)}")
  code = f"mtjax {project['version']}"
  code += f" at {project['commit']}" if project["commit"] and "source" not in record else ""
  if record["versions"] is None:
    said.append(f"{code}; the versions of other packages were not recorded")
  else:
    packages = [f"{name} {number}" for name, number in record["versions"].items() if number]
    said.append(", ".join([code, *(one for one in packages if not one.startswith("mtjax "))]))
  text = f"Measured on {record['date']}: {'; '.join(said)}."
  if record.get("transcribed"):
    text += (
      f" Typed from the run of {record['date']}, before results were kept as files; "
      f"{record['source']}."
    )
  if not record["complete"]:
    text += " **Not complete: the run was stopped before its end.**"
  return text


def runs_table() -> str:
  """Returns the commands of all runs with their time and what they need, in Markdown."""
  rows = []
  for run in RUNS:
    minutes = "-" if run.minutes is None else str(run.minutes)
    timed = "yes" if run.is_timed else "no"
    rows.append((f"`{run.path}`", minutes, timed, run.needs or "-"))
  header = ("file", "minutes", "timed", "needs, beside the sets")
  table = Cells("Minutes are estimates for 2 cores", header, rows).markdown()
  return f"{table}\n\n```\n" + "\n\n".join(run.command() for run in RUNS) + "\n```"


def _section(name: str) -> str:
  return f"<!-- {name}: {MADE} -->\n\n{_content(name)}\n\n<!-- end of {name} -->"


def _content(name: str) -> str:
  if name == "runs":
    return runs_table()
  path = ROOT / name
  if path.is_file():
    return section(results.read(path))
  if name not in _RUNS_BY_PATH:
    raise ValueError(f"no run of docs/make/benchmarks/runs.py makes {name}, and there is no file")
  return f"Not measured yet. The command:\n\n```\n{_RUNS_BY_PATH[name].command()}\n```"


def _lines(command: str) -> str:
  """Commands, one a line, in lines that are not too long."""
  return "\n".join(wrapped(re.split(r" (?='?--)", line)) for line in command.splitlines())
