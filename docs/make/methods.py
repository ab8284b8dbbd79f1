"""Writes the method table into README.md: python -m docs.make.methods"""

from pathlib import Path

from mtjax.cli import flags as launch
from mtjax.registry import methods

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN = "<!-- methods: made by `python -m docs.make.methods`; a test compares -->\n"
END = "<!-- end of methods -->"


def with_table(text: str) -> str:
  """README with its table made anew."""
  before, rest = text.split(BEGIN)
  return before + BEGIN + methods.table() + "\n" + END + rest.split(END)[1]


def run() -> None:
  README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
  launch.main(run)
