"""Signatures of the public functions and methods of both packages say all of their types."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.source import sources


def functions(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
  """Yields the public functions of a module and the public methods of its public classes, by name.

  Of the names with underscores, `__init__` and `__call__` are public: users write those calls.
  """
  for node in body:
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
      yield from functions(node.body, f"{owner}{node.name}.")
    elif isinstance(node, ast.FunctionDef):
      if not node.name.startswith("_") or node.name in ("__init__", "__call__"):
        yield owner + node.name, node


def missing(name: str, function: ast.FunctionDef) -> list[str]:
  """Returns the names of parameters without a type, and "return" if that has none.

  `__init__` returns nothing, so it needs no type there.
  """
  args = function.args
  parameters = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
  static = any(ast.unparse(decorator) == "staticmethod" for decorator in function.decorator_list)
  if "." in name and not static:
    parameters = parameters[1:]  # self or cls
  names = [p.arg for p in parameters if p is not None and p.annotation is None]
  if function.returns is None and function.name != "__init__":
    names.append("return")
  return names


def unannotated(path: Path, tree: ast.Module) -> list[str]:
  """Returns one line for each function of a file whose signature lacks a type."""
  return [
    f"{path}:{function.lineno} {name}: {', '.join(names)}"
    for name, function in functions(tree.body)
    if (names := missing(name, function))
  ]


def test_public_signatures_are_annotated():
  lines = [
    line
    for path, tree in sources().items()
    if path.parts[0] in ("mtjax", "kernels_pallas")
    for line in unannotated(path, tree)
  ]
  assert not lines, "write the types of:\n" + "\n".join(lines)


@pytest.mark.parametrize(
  ("code", "names"),
  [
    ("def f(x) -> int: ...", "x"),
    ("def f(x: int): ...", "return"),
    ("def f(*, x: int, y=0) -> int: ...", "y"),
    ("def f(*rest, **more) -> None: ...", "rest, more"),
    ("class A:\n  def f(self, x) -> int: ...", "x"),
    ("class A:\n  def __call__(self, x: int): ...", "return"),
    ("class A:\n  def __init__(self, x): ...", "x"),
    ("class A:\n  @staticmethod\n  def f(x) -> int: ...", "x"),
    ("class A:\n  @classmethod\n  def f(cls, x: int): ...", "return"),
    ("class A:\n  class B:\n    def f(self, x) -> int: ...", "x"),
  ],
)
def test_the_check_sees(code, names):
  (line,) = unannotated(Path("mtjax/planted.py"), ast.parse(code))
  assert line.endswith(f": {names}")


@pytest.mark.parametrize(
  "code",
  [
    "def f(x: int, *rest: int, y: int = 0, **more: int) -> int: ...",
    "def _f(x): ...",
    "class _A:\n  def f(self, x): ...",
    "class A:\n  def __init__(self, x: int): ...\n  def __eq__(self, other): ...",
    "def f() -> None:\n  def inner(x): ...",
  ],
)
def test_the_check_lets_pass(code):
  assert not unannotated(Path("mtjax/planted.py"), ast.parse(code))
