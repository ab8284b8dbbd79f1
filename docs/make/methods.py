"""Writes the tables of methods into README.md and docs/methods.md: python -m docs.make.methods"""

import inspect
from pathlib import Path

from mtjax.anysubset.filling.names import METHODS as FILLING
from mtjax.anysubset.filling.names import get_fill_method
from mtjax.cli import flags as launch
from mtjax.registry import methods
from mtjax.types import DraftScheme
from mtjax.verify import VERIFIERS, Verifier

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "methods.md"
BEGIN = "<!-- {name}: made by `python -m docs.make.methods`; a test compares -->\n"
END = "<!-- end of {name} -->"

_CHOSEN = {
  DraftScheme.DELTA: "by a rule",
  DraftScheme.WITH_REPLACEMENT: "with replacement",
  DraftScheme.WITHOUT_REPLACEMENT: "without replacement",
  DraftScheme.GREEDY_PLUS_ONE: "greedily and one",
  DraftScheme.PAIR: "as a pair",
}


def verifiers_table() -> str:
  """Returns the table of verifiers in Markdown: for which drafts each keeps what."""
  rows = [
    (f"`{name}`", methods.linked(verifier.paper), _drafts(verifier), verifier.exactness.value)
    for name, verifier in VERIFIERS.items()
  ]
  return methods.markdown(("verifier", "paper", "drafts", "exactness"), rows)


def fill_methods_table() -> str:
  """Returns the table of fill methods in Markdown; the words are those of their docstrings."""
  rows = []
  for name in FILLING:
    method = type(get_fill_method(name, 2))
    summary = (inspect.getdoc(method) or "").split("\n\n")[0].replace("\n", " ")
    exactness = get_fill_method(name, 2).exactness.value
    rows.append((f"`{name}`", f"`{method.__name__}`", methods.linked(summary), exactness))
  return methods.markdown(("name", "class", "how it fills", "exactness"), rows)


TABLES = {
  README: {"methods": methods.short_table},
  PAGE: {
    "methods": methods.table,
    "verifiers": verifiers_table,
    "fill methods": fill_methods_table,
  },
}


def with_tables(path: Path) -> str:
  """Returns the text of a page of TABLES with its tables made anew."""
  text = path.read_text(encoding="utf-8")
  for name, table in TABLES[path].items():
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, rest = text.split(begin)
    text = before + begin + table() + "\n" + end + rest.split(end)[1]
  return text


def run() -> None:
  for path in TABLES:
    path.write_text(with_tables(path), encoding="utf-8")


def _drafts(verifier: Verifier) -> str:
  shape = "chains" if verifier.chains_only else "trees"
  if verifier.schemes == frozenset(DraftScheme):
    return f"{shape}, chosen in any way"
  chosen = (_CHOSEN[scheme] for scheme in DraftScheme if scheme in verifier.schemes)
  return f"{shape}, chosen {' or '.join(chosen)}"


if __name__ == "__main__":
  launch.main(run)
