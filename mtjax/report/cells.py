"""A table as text, for a terminal or for a page."""

import dataclasses
from collections.abc import Sequence

from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Cells:
  """A table as text: the first column names, the others hold figures."""

  title: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]

  def for_terminal(self) -> Table:
    """Returns a table that cuts no cell: names wrap where it is too wide, and figures do not."""
    table = Table(title=self.title)
    for place, name in enumerate(self.header):
      column = [row[place] for row in self.rows]
      table.add_column(
        name,
        justify="right" if place else "left",
        overflow="fold",
        min_width=max(map(len, column), default=0) if place and _figures(column) else None,
      )
    for row in self.rows:
      table.add_row(*row)
    return table

  def markdown(self) -> str:
    def line(cells):
      return f"| {' | '.join(cells)} |"

    rule = "|" + "---|" * len(self.header)
    return "\n".join([f"{self.title}:", "", line(self.header), rule, *map(line, self.rows)])


def _figures(column: Sequence[str]) -> bool:
  """Returns whether every cell is empty or begins with a digit or a sign, as names do not."""
  return all(not cell or cell[0].isdigit() or cell[0] in "+-" for cell in column)
