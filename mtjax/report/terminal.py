"""Tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

_UNITS = {"seconds": "s", "compile_seconds": "s", "tokens_per_second": "tokens/s"}


def counters_table(counters: Mapping[str, Any]) -> Table:
  """A run's counters, one a line."""
  table = Table(show_header=False, box=None, padding=(0, 1))
  table.add_column(style="dim")
  table.add_column(justify="right")
  for name, value in counters.items():
    table.add_row(name.replace("_", " "), f"{_number(value)} {_UNITS.get(name, '')}".rstrip())
  return table


def audit_table(rows: Sequence[Mapping[str, Any]]) -> Table:
  """`mtjax.optimum.Audit.rows`: acceptance at each depth beside the best that any rule reaches."""
  table = Table("depth", "positions", "accepted", "optimum", "gap", box=box.SIMPLE_HEAD)
  for row in rows:
    shares = (f"{row[name]:.3f}" for name in ("accepted", "optimum", "gap"))
    table.add_row(str(row["depth"]), f"{row['positions']:,}", *shares)
  return table


def _number(value) -> str:
  if isinstance(value, list):
    return "  ".join(map(_number, value))
  return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
