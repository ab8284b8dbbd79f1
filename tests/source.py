"""The project's own source, parsed: what tests of its shape look at."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ("mtjax", "kernels_pallas", "configs", "experiments", "tests", "docs", "colab")


@functools.cache
def sources() -> dict[Path, ast.Module]:
  """Every Python file of the project, parsed, by path relative to the root."""
  files = [f for folder in CODE for f in sorted((ROOT / folder).rglob("*.py"))]
  return {
    f.relative_to(ROOT): ast.parse(f.read_text(encoding="utf-8"), filename=str(f)) for f in files
  }


def python_blocks(page: Path) -> list[str]:
  """The Python code of a Markdown page, block by block."""
  return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def imported(path: Path, tree: ast.Module) -> dict[str, int]:
  """Absolute names of what a file imports, anywhere in it, with the line."""
  names = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name: node.lineno for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        base = ".".join([*path.parts[: -node.level], *filter(None, [node.module])])
      names |= {f"{base}.{alias.name}": node.lineno for alias in node.names}
  return names


def used(path: Path, tree: ast.Module) -> dict[str, int]:
  """Full dotted names that a file imports or reaches through an imported alias, with the line."""
  names, aliases = imported(path, tree), {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        first = alias.name.split(".")[0]
        aliases[alias.asname or first] = alias.name if alias.asname else first
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
      aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
  for node in ast.walk(tree):
    parts, inner = [], node
    while isinstance(inner, ast.Attribute):
      parts.append(inner.attr)
      inner = inner.value
    if parts and isinstance(inner, ast.Name) and inner.id in aliases:
      names[".".join([aliases[inner.id], *reversed(parts)])] = node.lineno
  return names


def within(name: str, prefix: str) -> bool:
  return name == prefix or name.startswith(prefix + ".")


@functools.cache
def modules() -> dict[str, Path]:
  """Every module of the library by its dotted name."""
  out = {}
  for path in sources():
    parts = path.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    if parts[0] in ("mtjax", "kernels_pallas"):
      out[".".join(parts)] = path
  return out
