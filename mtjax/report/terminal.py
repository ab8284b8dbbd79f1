"""Tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

_UNITS = {"seconds": "s", "compile_seconds": "s", "tokens_per_second": "tokens/s"}


def counters_table(counters: Mapping[str, Any]) -> Table:
  """Returns a table of a run's counters, one per line."""
  table = Table(show_header=False, box=None, padding=(0, 1))
  table.add_column(style="dim")
  table.add_column(justify="right")
  for name, value in counters.items():
    table.add_row(name.replace("_", " "), f"{_number(value)} {_UNITS.get(name, '')}".rstrip())
  return table


def audit_tables(report: Mapping[str, Any]) -> list[Table]:
  """Returns tables of an `Audit.report` of mtjax.decode: what was accepted beside the bound."""
  paths = _audit_table("drafts accepted per round", "rounds", "bound", report["paths"])
  if report["grown"]:
    paths.caption = "the tree grows with its samples: deeper than 1 the bound is loose"
  nodes = _audit_table("drafts accepted after their parent", "nodes", "optimum", report["nodes"])
  return [paths, nodes] if report["nodes"] else [paths]


def _audit_table(title: str, count: str, best: str, rows: Sequence[Mapping[str, Any]]) -> Table:
  """Returns the share accepted, the best possible, and the gap with its 99 % interval."""
  names = {"bound": "bound of all rules", "optimum": "node-wise optimum"}
  columns = ("depth", count, "accepted", names[best], "gap, 99 %")
  table = Table(*columns, title=title, box=box.SIMPLE_HEAD)
  for row in rows:
    shares = (f"{row[name]:.3f}" for name in ("accepted", best))
    gap = f"{row['gap']:+.3f} ± {row['error']:.3f}"
    table.add_row(str(row["depth"]), f"{row['count']:,}", *shares, gap)
  return table


def _number(value) -> str:
  if isinstance(value, list):
    return "  ".join(map(_number, value))
  return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
