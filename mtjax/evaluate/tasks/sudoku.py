"""Sudoku of 4 x 4 cells as text, where the order of filling matters (the set of 2504.12216)."""

import csv
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np

from mtjax.data.sources.text_files import read_text
from mtjax.data.tokenizers import Tokenizer
from mtjax.evaluate.tasks.examples import Example, Piece, from_pieces, whole
from mtjax.evaluate.tasks.protocol import Answer, Record, share

_CELLS = re.compile(r"[0-4]{16}")
_HEADER = ["Puzzle", "Solution"]


@dataclasses.dataclass(frozen=True)
class Sudoku:
  """The task with lines `Puzzle: 3 1 0 2 ...` and `Solution: 3 1 4 2 ...`; 0 is a blank cell.

  The cells of the solution that the puzzle leaves blank are the targets. Files have the columns
  Puzzle and Solution, 16 digits each. Any valid grid that keeps the puzzle's digits counts as
  solved. `right_cells` of a record: the share of target cells that hold the reference's digit.
  """

  temperature = 0.0

  def examples(self, path: str, tokenizer: Tokenizer, *, max_tokens: int) -> list[Example]:
    examples = []
    for number, (puzzle, solution) in enumerate(read_puzzles(path), 1):
      if "0" in puzzle:
        about = dict(puzzle=puzzle, solution=solution)
        text = pieces(puzzle, solution)
        examples.append(whole(from_pieces(f"puzzle {number}", text, tokenizer, about), max_tokens))
    return examples

  def judge(self, example: Example, answer: Answer) -> dict[str, bool | float]:
    puzzle, solution = example.about["puzzle"], example.about["solution"]
    cells = answer.text.partition("Solution:")[2].split()
    blanks = [i for i, digit in enumerate(puzzle) if digit == "0"]
    right = sum(cells[i : i + 1] == [solution[i]] for i in blanks)
    # The cells after the blank are context, which a causal model does not see.
    missing = solution[len(cells) :] if set(puzzle[len(cells) :]).isdisjoint("0") else ""
    grid = "".join(cell if len(cell) == 1 else "?" for cell in cells) + missing
    return dict(solved=solves(puzzle, grid), right_cells=right / len(blanks))

  def summary(self, records: Sequence[Record]) -> dict[str, float]:
    right = float(np.mean([record["right_cells"] for record in records]))
    return dict(solved=share(records, "solved"), right_cells=right)

  def training_texts(self, path: str, *, seed: int) -> Iterator[str]:
    """Yields endless texts of puzzles that are not in the file, with 6 to 12 blank cells each.

    There are only 288 grids, so the file's solutions are known to a model trained on these.
    """
    held_out = {puzzle for puzzle, _ in read_puzzles(path)}
    rng = np.random.default_rng(seed)
    while True:
      solution = grids()[rng.integers(len(grids()))]
      blank = rng.permutation(16)[: rng.integers(6, 13)]
      puzzle = "".join("0" if i in blank else digit for i, digit in enumerate(solution))
      if puzzle not in held_out:
        yield "".join(text for text, _ in pieces(puzzle, solution))


def pieces(puzzle: str, solution: str) -> list[Piece]:
  """Returns the text, cell by cell."""
  head = f"Puzzle: {' '.join(puzzle)}\nSolution:"
  cells = [(f" {digit}", cell == "0") for cell, digit in zip(puzzle, solution, strict=True)]
  return [(head, False), *cells, ("\n", False)]


def is_valid(grid: str) -> bool:
  """Returns True if every row, column and quarter of 16 digits holds 1, 2, 3 and 4."""
  return _CELLS.fullmatch(grid) is not None and all(
    {grid[i] for i in group} == set("1234") for group in _groups()
  )


def solves(puzzle: str, grid: str) -> bool:
  """Returns True for a valid grid that keeps all digits of the puzzle."""
  return is_valid(grid) and all(a in ("0", b) for a, b in zip(puzzle, grid, strict=True))


@functools.cache
def grids() -> tuple[str, ...]:
  """Returns all 288 valid grids."""
  rows = ["".join(row) for row in itertools.permutations("1234")]
  halves = [a + b for a, b in itertools.product(rows, repeat=2) if not set(a[:2]) & set(b[:2])]
  return tuple(filter(is_valid, (a + b for a, b in itertools.product(halves, repeat=2))))


def read_puzzles(path: str) -> list[tuple[str, str]]:
  """Returns (puzzle, solution) per row. Raises ValueError for another file or a wrong solution."""
  header, *rows = [row for row in csv.reader(read_text(path).splitlines()) if row] or [[]]
  if header != _HEADER:
    raise ValueError(f"{path}: a file of sudokus must begin with the line {','.join(_HEADER)}")
  for number, row in enumerate(rows, 2):
    if len(row) != 2 or not _CELLS.fullmatch(row[0]) or not solves(*row):
      raise ValueError(
        f"{path}, row {number}: a row must be a puzzle of 16 digits 0 to 4 and its solution"
      )
  return [(puzzle, solution) for puzzle, solution in rows]


def _groups() -> Sequence[Sequence[int]]:
  rows = [range(4 * i, 4 * i + 4) for i in range(4)]
  columns = [range(i, 16, 4) for i in range(4)]
  quarters = [(i, i + 1, i + 4, i + 5) for i in (0, 2, 8, 10)]
  return [*rows, *columns, *quarters]
