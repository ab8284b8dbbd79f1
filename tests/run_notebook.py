"""Runs the code cells of a notebook in this process, as IPython does, and says what they show.

python -m tests.run_notebook NOTEBOOK OUTPUT.json NAME=VALUE ...

NAME=VALUE replaces constants after the cell that is tagged "parameters", as papermill does. A cell
that would install something fails. Needs no Jupyter: cells here are Python with %pip.
"""

import ast
import base64
import contextlib
import io
import json
import re
import sys
from pathlib import Path


def prepared(source: str) -> str:
  """Returns a cell as Python: where it would install, it raises."""
  return re.sub(r"^(\s*)%pip .*$", r'\1raise RuntimeError("it installs")', source, flags=re.M)


def run_cell(source: str, name: str, namespace: dict) -> dict[str, str]:
  """Runs a cell and returns what it prints, and the value of its last line as HTML, PNG or text."""
  tree = ast.parse(prepared(source), name)
  last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
  shown, printed = {}, io.StringIO()
  with contextlib.redirect_stdout(printed):
    exec(compile(tree, name, "exec"), namespace)
    value = None
    if last is not None:
      value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
  if printed.getvalue():
    shown["printed"] = printed.getvalue()
  if hasattr(value, "_repr_html_") and value._repr_html_() is not None:
    shown["html"] = value._repr_html_()
  elif hasattr(value, "_repr_png_"):
    shown["png"] = base64.b64encode(value._repr_png_()).decode()
  elif value is not None:
    shown["text"] = repr(value)
  return shown


def main() -> None:
  path, output, *settings = sys.argv[1:]
  constants = {name: ast.literal_eval(value) for name, value in (s.split("=", 1) for s in settings)}
  notebook = json.loads(Path(path).read_text(encoding="utf-8"))
  namespace, out = {"__name__": "__main__"}, []
  for number, cell in enumerate(notebook["cells"]):
    if cell["cell_type"] != "code":
      continue
    name = f"{Path(path).name}, cell {number}"
    try:
      out.append(run_cell("".join(cell["source"]), name, namespace))
    except Exception as error:
      raise RuntimeError(f"{name} raises {type(error).__name__}: {error}") from error
    if "parameters" in cell["metadata"].get("tags", ()):
      unknown = constants.keys() - namespace.keys()
      if unknown:
        raise ValueError(f"{name} has no constant {', '.join(sorted(unknown))}")
      namespace |= constants
  Path(output).write_text(json.dumps(out), encoding="utf-8")


if __name__ == "__main__":
  main()
