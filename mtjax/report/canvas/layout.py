"""Where the characters of a text stand in lines of equal cells, before they are there."""

import dataclasses
from collections.abc import Sequence

from mtjax.report.history.drawing import text_width


@dataclasses.dataclass(frozen=True)
class Cell:
  """The place of one character; wide ones take two columns."""

  column: int
  line: int
  width: int


@dataclasses.dataclass(frozen=True)
class CanvasLayout:
  """The characters of a prompt with their cells, and the cells of each place of the canvas."""

  prompt: list[tuple[Cell, str]]
  places: list[list[Cell]]
  lines: int


def lay_out(prompt: str, places: Sequence[str | None], columns: int) -> CanvasLayout:
  """Returns the layout of a prompt and of what each place shows in the end.

  A place without text, and one that is still a mask, has one cell. A newline of the canvas has a
  cell too, so that it can be seen as a mask; lines are cut after `columns`.
  """
  grid = _Grid(columns)
  written = [(grid.next(one), one) for one in prompt if one != "\n" or grid.end_line()]
  cells = []
  for shown in places:
    here = []
    for one in shown or " ":
      here.append(grid.next(one))
      if one == "\n":
        grid.end_line()
    cells.append(here)
  return CanvasLayout(written, cells, grid.line + 1)


class _Grid:
  """Where the next character goes."""

  def __init__(self, columns: int):
    self.columns, self.column, self.line = columns, 0, 0

  def next(self, character: str) -> Cell:
    width = 1 if character == "\n" else max(text_width(character), 1)
    if self.column + width > self.columns:
      self.end_line()
    cell = Cell(self.column, self.line, width)
    self.column += width
    return cell

  def end_line(self) -> bool:
    """Goes to the next line. Returns false: a line's end is no character."""
    self.column, self.line = 0, self.line + 1
    return False
