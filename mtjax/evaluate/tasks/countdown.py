"""Countdown: an expression of some numbers that makes a target (2404.03683; set: 2504.12216)."""

import ast
import dataclasses
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from mtjax.data.sources.text_files import read_records
from mtjax.data.tokenizers import Tokenizer
from mtjax.evaluate.tasks.examples import Example, Piece, from_pieces, whole
from mtjax.evaluate.tasks.protocol import Answer, Record, share

_ALLOWED = re.compile(r"[\d+\-*/() ]{1,80}")
_OPERATORS = "+-*/"


@dataclasses.dataclass(frozen=True)
class Countdown:
  """The task with lines `Numbers: 30, 100, 93`, `Target: 23`, `Solution: (30 + 93) - 100`.

  The expression is the blank. Files: JSON lines of {"input": "30,100,93", "output": "23"}. The
  reference is the first solution of an exhaustive search, and the blank has as many tokens as the
  reference, which tells the model its length. A solution counts as solved if `makes` says so.
  """

  temperature = 0.0

  def examples(self, path: str, tokenizer: Tokenizer, *, max_tokens: int) -> list[Example]:
    examples = []
    for number, (numbers, target), solution in read_solved(path):
      about = dict(numbers=numbers, target=target)
      text = pieces(numbers, target, solution)
      examples.append(whole(from_pieces(f"line {number}", text, tokenizer, about), max_tokens))
    return examples

  def judge(self, example: Example, answer: Answer) -> dict[str, bool]:
    return dict(solved=makes(answer.blank, example.about["numbers"], example.about["target"]))

  def summary(self, records: Sequence[Record]) -> dict[str, float]:
    return dict(solved=share(records, "solved"))

  def training_texts(self, path: str, *, seed: int) -> Iterator[str]:
    """Yields endless texts of problems that are not in the file: three numbers of 1 to 100."""
    held_out = {(tuple(sorted(numbers)), target) for _, (numbers, target) in read_countdowns(path)}
    rng = np.random.default_rng(seed)
    while True:
      numbers, target = rng.integers(1, 101, 3).tolist(), int(rng.integers(10, 100))
      known = (tuple(sorted(numbers)), target) in held_out or target in numbers
      solution = None if known else solve(numbers, target)
      if solution is not None:
        yield "".join(text for text, _ in pieces(numbers, target, solution))


def pieces(numbers: Sequence[int], target: int, solution: str) -> list[Piece]:
  head = f"Numbers: {', '.join(map(str, numbers))}\nTarget: {target}\nSolution:"
  return [(head, False), (f" {solution}", True), ("\n", False)]


def makes(expression: str, numbers: Sequence[int], target: int) -> bool:
  """Returns True if the expression of + - * / has the value `target` and uses no number twice."""
  text = expression.strip()
  if not _ALLOWED.fullmatch(text):
    return False
  try:
    tree = ast.parse(text, mode="eval").body
    used = Counter(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return used <= Counter(numbers) and _value(tree) == target
  except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
    return False


def solve(numbers: Sequence[int], target: int) -> str | None:
  """Returns the first expression that makes the target, fewest numbers first, or None."""
  return _solve(tuple(numbers), target)


@functools.lru_cache(10_000)  # a file is first checked, and read again with a model's tokenizer
def _solve(numbers: tuple[int, ...], target: int) -> str | None:
  for count in range(1, len(numbers) + 1):
    for chosen in itertools.permutations(numbers, count):
      for value, text in _expressions(chosen):
        if value == target:
          return text.removeprefix("(").removesuffix(")") if count > 1 else text
  return None


def read_countdowns(path: str) -> list[tuple[int, tuple[list[int], int]]]:
  """Returns (line, (numbers, target)) per record. Raises ValueError for records of another form."""
  problems = []
  for number, record in read_records(path, ("input", "output")):
    try:
      numbers = [int(x) for x in record["input"].split(",")]
      problems.append((number, (numbers, int(record["output"]))))
    except ValueError:
      raise ValueError(
        f"{path}, line {number}: input must be numbers with commas, and output a number"
      ) from None
  return problems


def read_solved(path: str) -> list[tuple[int, tuple[list[int], int], str]]:
  """Returns (line, (numbers, target), solution) per record.

  Raises ValueError for records of another form, and for a problem without a solution.
  """
  solved = []
  for number, (numbers, target) in read_countdowns(path):
    solution = solve(numbers, target)
    if solution is None:
      raise ValueError(f"{path}, line {number}: {target} cannot be made of {numbers}")
    solved.append((number, (numbers, target), solution))
  return solved


def _expressions(numbers: Sequence[int]) -> Iterator[tuple[Fraction, str]]:
  """Yields every expression of the numbers in this order, in brackets if it has an operator."""
  if len(numbers) == 1:
    yield Fraction(numbers[0]), str(numbers[0])
  for split in range(1, len(numbers)):
    for (left, a), (right, b) in itertools.product(
      _expressions(numbers[:split]), _expressions(numbers[split:])
    ):
      for operator in _OPERATORS:
        if operator != "/" or right:
          yield _apply(operator, left, right), f"({a} {operator} {b})"


def _apply(operator: str, left: Fraction, right: Fraction) -> Fraction:
  if operator == "+":
    return left + right
  if operator == "-":
    return left - right
  return left * right if operator == "*" else left / right


_SYMBOLS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def _value(node: ast.expr) -> Fraction:
  """Returns the exact value. Raises ValueError for other nodes than whole numbers and + - * /."""
  if isinstance(node, ast.Constant) and isinstance(node.value, int):
    return Fraction(node.value)
  if isinstance(node, ast.BinOp) and type(node.op) in _SYMBOLS:
    return _apply(_SYMBOLS[type(node.op)], _value(node.left), _value(node.right))
  raise ValueError("no expression of whole numbers")
