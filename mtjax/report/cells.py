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
    table = Table(title=self.title)
    for place, name in enumerate(self.header):
      table.add_column(name, justify="right" if place else "left", no_wrap=not place)
    for row in self.rows:
      table.add_row(*row)
    return table

  def markdown(self) -> str:
    def line(cells):
      return f"| {' | '.join(cells)} |"

    rule = "|" + "---|" * len(self.header)
    return "\n".join([f"{self.title}:", "", line(self.header), rule, *map(line, self.rows)])
