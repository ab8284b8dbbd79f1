"""Writes what notebooks share, and strips their outputs: python -m docs.make.notebooks

The badge and the cell that installs name the repository, so that REPOSITORY is the one place to
change when it moves. A test compares.
"""

import json
from pathlib import Path
from typing import Any

# Owner and name on GitHub. The project has no public address yet: set it here and run this file.
REPOSITORY = "OWNER/mtjax"
FOLDER = Path(__file__).resolve().parent.parent.parent / "colab"

_BADGE = (
  "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
  "(https://colab.research.google.com/github/{repository}/blob/main/colab/{name})"
)
_INSTALL = """from importlib.util import find_spec

if find_spec("mtjax") is None:
  %pip install -q "mtjax[viz] @ git+https://github.com/{repository}"\
"""


def badge(name: str) -> str:
  """Returns the line that opens a notebook in Colab."""
  return _BADGE.format(repository=REPOSITORY, name=name)


def install() -> str:
  """Returns the cell that installs mtjax where it is missing."""
  return _INSTALL.format(repository=REPOSITORY)


def made(name: str, notebook: dict[str, Any]) -> dict[str, Any]:
  """Returns the notebook with its badge, its first code cell as `install`, and without outputs."""
  cells = [dict(cell) for cell in notebook["cells"]]
  first = next(i for i, cell in enumerate(cells) if cell["cell_type"] == "code")
  _, *rest = cells[0]["source"]
  cells[0]["source"] = [badge(name) + "\n", *rest]
  cells[first]["source"] = install().splitlines(keepends=True)
  for cell in cells:
    if cell["cell_type"] == "code":
      cell |= dict(execution_count=None, outputs=[])
  return {**notebook, "cells": cells}


def written(notebook: dict[str, Any]) -> str:
  """Returns the text of the file, as Jupyter writes it."""
  return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
  for path in sorted(FOLDER.glob("*.ipynb")):
    notebook = made(path.name, json.loads(path.read_text(encoding="utf-8")))
    path.write_text(written(notebook), encoding="utf-8")
    print(f"wrote colab/{path.name}")


if __name__ == "__main__":
  main()
