"""Writes the tables of methods into README.md and the pages of docs: python -m docs.make.methods"""

import functools
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mtjax.cli import flags as launch
from mtjax.registry.denoising.machines import MACHINES
from mtjax.registry.denoising.methods import DENOISERS
from mtjax.registry.denoising.rules import (
  CACHES,
  GUIDANCE,
  ORDERS,
  REVISIONS,
  TRANSFERS,
  RuleRow,
)
from mtjax.registry.denoising.uniform_rules import UNIFORM_RULES
from mtjax.registry.methods import decoding, filling, get_fill_method
from mtjax.train.losses.registry import OBJECTIVES, defaults_of
from mtjax.types import DraftScheme
from mtjax.verify import VERIFIERS, Verifier

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "methods.md"
INFILL = ROOT / "docs" / "guides" / "infill.md"
DIFFUSION = ROOT / "docs" / "guides" / "diffusion.md"
DECODE = ROOT / "docs" / "guides" / "decode.md"
BEGIN = "<!-- {name}: made by `python -m docs.make.methods`; a test compares -->\n"
END = "<!-- end of {name} -->"

_CHOSEN = {
  DraftScheme.DELTA: "by a rule",
  DraftScheme.WITH_REPLACEMENT: "with replacement",
  DraftScheme.WITHOUT_REPLACEMENT: "without replacement",
  DraftScheme.GREEDY_PLUS_ONE: "greedily and one",
  DraftScheme.PAIR: "as a pair",
}


def decoding_table() -> str:
  """Returns the whole table of decoding methods in Markdown, with links to the papers."""
  rows = [
    (f"{m.title} (`{name}`)", m.family, linked(m.paper), m.exactness.value)
    + tuple(f"`{path}`" for path in (m.file, m.config, m.test))
    for name, m in decoding().items()
  ]
  return markdown(("method", "family", "paper", "exactness", "file", "config", "test"), rows)


def short_decoding_table() -> str:
  """Returns the table of decoding methods of README.md in Markdown: what to choose, and when."""
  rows = [
    (f"{m.title} ([`{name}`]({m.config}))", m.family, m.exactness.value, m.pays)
    for name, m in decoding().items()
  ]
  return markdown(("method", "family", "exactness", "when it pays"), rows)


def drafters_table() -> str:
  """Returns the table of drafters of the guide in Markdown: how each of them drafts."""
  rows = [(f"`{name}`", m.how or m.title) for name, m in decoding().items() if m.drafter]
  return markdown(("name", "how it drafts"), rows)


def verifiers_table() -> str:
  """Returns the table of verifiers in Markdown: for which drafts each keeps what."""
  rows = [
    (f"`{name}`", linked(verifier.paper), _drafts(verifier), verifier.exactness.value)
    for name, verifier in VERIFIERS.items()
  ]
  return markdown(("verifier", "paper", "drafts", "exactness"), rows)


def filling_table() -> str:
  """Returns the whole table of fill methods in Markdown; of the classes it has the first words."""
  rows = []
  for name, row in filling().items():
    made = get_fill_method(name)()
    summary = (inspect.getdoc(type(made)) or "").split("\n\n")[0].replace("\n", " ")
    settings = ", ".join(f"`{setting}`" for setting in get_fill_method(name).settings) or "-"
    rows.append(
      (f"`{name}`", f"`{type(made).__name__}`", linked(summary), settings, row.exactness.value)
      + (linked(row.paper), f"`{row.file}`", f"`{row.test}`")
    )
  header = ("name", "class", "how it fills", "settings", "exactness", "paper", "file", "test")
  return markdown(header, rows)


def short_filling_table() -> str:
  """Returns the table of fill methods of README.md in Markdown: what to choose, and when."""
  rows = [(f"{m.title} (`{name}`)", m.exactness.value, m.pays) for name, m in filling().items()]
  return markdown(("fill method", "exactness", "when it pays"), rows)


def fill_classes_table() -> str:
  """Returns the table of fill methods of the guide in Markdown: what to construct in Python."""
  rows = []
  for name, row in filling().items():
    entry = get_fill_method(name)
    call = f"{type(entry()).__name__}({', '.join(entry.settings)})"
    rows.append((f"`{call}`", row.title, row.exactness.value))
  return markdown(("class", "how it fills", "exactness"), rows)


def denoising_table() -> str:
  """Returns the table of methods of denoising in Markdown: which rules and cache each has."""
  rows = [
    (f"{row.title} (`{name}`)", linked(row.paper), ", ".join(row.denoiser.consists_of))
    + (row.denoiser.exactness.value, f"`{row.config}`")
    for name, row in DENOISERS.items()
  ]
  return markdown(("method", "paper", "consists of", "exactness", "config"), rows)


def denoising_classes_table() -> str:
  """Returns the table of methods of denoising of the guide in Markdown: what each consists of."""
  rows = [
    (f"`{name}`", row.title, ", ".join(row.denoiser.consists_of), row.denoiser.exactness.value)
    for name, row in DENOISERS.items()
  ]
  return markdown(("name", "what it does", "consists of", "exactness"), rows)


def rules_table(rows: dict[str, RuleRow]) -> str:
  """Returns the whole table of rules, or of caches, in Markdown."""
  lines = [
    (f"{row.title} (`{name}`)", f"`{row.make.__name__}`", _settings(row), row.exactness.value)
    + (linked(row.paper), *(f"`{path}`" for path in (row.file, row.config, row.test)))
    for name, row in rows.items()
  ]
  header = ("name", "class", "settings", "exactness", "paper", "file", "config", "test")
  return markdown(header, lines)


def short_rules_table(rows: dict[str, RuleRow]) -> str:
  """Returns the table of rules of the guide in Markdown: which are exact, and why not."""
  lines = [
    (f"`{name}`", row.title, row.exactness.value, row.reason or "-") for name, row in rows.items()
  ]
  return markdown(("name", "what it does", "exactness", "because"), lines)


def objectives_table() -> str:
  """Returns the table of objectives of training in Markdown."""
  rows = []
  for name, row in OBJECTIVES.items():
    settings = ", ".join(f"`{setting}`" for setting in defaults_of(name)) or "-"
    models = ", ".join(f"`{kind}`" for kind in row.predicts)
    paths = (f"`{row.file}`", f"`{row.config}`")
    rows.append((f"`{name}`", row.summary, linked(row.paper), models, settings, *paths))
  header = ("objective", "what is minimised", "paper", "models that predict", "settings")
  return markdown((*header, "file", "config"), rows)


def linked(paper: str) -> str:
  """Returns the text with every arXiv number in it as a link."""
  return re.sub(r"\b\d{4}\.\d{5}\b", r"[\g<0>](https://arxiv.org/abs/\g<0>)", paper)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Returns a Markdown table."""
  lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
  return "\n".join((lines[0], "|" + "---|" * len(header), *lines[1:]))


TABLES = {
  README: {"methods": short_decoding_table, "fill methods": short_filling_table},
  PAGE: {
    "methods": decoding_table,
    "verifiers": verifiers_table,
    "fill methods": filling_table,
    "denoising": denoising_table,
    "orders": functools.partial(rules_table, ORDERS),
    "transfer rules": functools.partial(rules_table, TRANSFERS),
    "revision rules": functools.partial(rules_table, REVISIONS),
    "caches": functools.partial(rules_table, CACHES),
    "guidance": functools.partial(rules_table, GUIDANCE),
    "machines": functools.partial(rules_table, MACHINES),
    "uniform rules": functools.partial(rules_table, UNIFORM_RULES),
    "objectives": objectives_table,
  },
  DIFFUSION: {
    "denoising": denoising_classes_table,
    "orders": functools.partial(short_rules_table, ORDERS),
    "transfer rules": functools.partial(short_rules_table, TRANSFERS),
    "revision rules": functools.partial(short_rules_table, REVISIONS),
    "caches": functools.partial(short_rules_table, CACHES),
    "guidance": functools.partial(short_rules_table, GUIDANCE),
    "machines": functools.partial(short_rules_table, MACHINES),
    "uniform rules": functools.partial(short_rules_table, UNIFORM_RULES),
  },
  INFILL: {"fill methods": fill_classes_table},
  DECODE: {"drafters": drafters_table},
}


def with_tables(path: Path) -> str:
  """Returns the text of a page of TABLES with its tables, and what it counts, made anew."""
  text = path.read_text(encoding="utf-8")
  counted = f"the {len(VERIFIERS)} verifiers and the {len(filling())} fill methods"
  text = re.sub(r"the \d+ verifiers and the \d+ fill methods", counted, text)
  for name, table in TABLES[path].items():
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, rest = text.split(begin)
    text = before + begin + table() + "\n" + end + rest.split(end)[1]
  return text


def run() -> None:
  for path in TABLES:
    made = with_tables(path)
    if made != path.read_text(encoding="utf-8"):
      path.write_text(made, encoding="utf-8")
      print(f"wrote {path.relative_to(ROOT)}")


def _settings(row: RuleRow) -> str:
  return ", ".join(f"`{name}={value}`" for name, value in row.settings.items()) or "-"


def _drafts(verifier: Verifier) -> str:
  shape = "chains" if verifier.chains_only else "trees"
  if verifier.schemes == frozenset(DraftScheme):
    return f"{shape}, chosen in any way"
  chosen = (_CHOSEN[scheme] for scheme in DraftScheme if scheme in verifier.schemes)
  return f"{shape}, chosen {' or '.join(chosen)}"


if __name__ == "__main__":
  launch.main(run)
