"""Nothing is advertised that does not run: the tables are the library's, and whole."""

import importlib
import re

import pytest

from docs.make.methods import BEGIN, PAGE, README, ROOT, TABLES, with_tables
from mtjax.anysubset.filling.names import METHODS as FILLING
from mtjax.anysubset.filling.names import get_fill_method
from mtjax.registry import methods
from mtjax.registry.methods import METHODS
from mtjax.verify import VERIFIERS


def rows(path, table):
  """The lines of a generated table, as they stand in the file."""
  text = path.read_text(encoding="utf-8").split(BEGIN.format(name=table))[1]
  return text.split("\n<!--")[0].splitlines()[2:]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_the_pages_show_the_tables(path):
  text = path.read_text(encoding="utf-8")
  assert text == with_tables(path), "run `python -m docs.make.methods` and commit what it wrote"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_file_a_config_and_a_test(name):
  method = METHODS[name]
  for path in (method.file, method.config, method.test):
    assert (ROOT / path).is_file(), f"{name}: {path} does not exist"
  config = importlib.import_module(method.config.removesuffix(".py").replace("/", "."))
  assert config.get_config().method == name


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_in_one_sentence_when_it_pays(name):
  method = METHODS[name]
  assert re.fullmatch(r"[A-Z][^.]*\.", method.pays), method.pays
  own = [row for row in rows(README, "methods") if f"[`{name}`]({method.config})" in row]
  assert len(own) == 1 and own[0].endswith(f"| {method.exactness.value} | {method.pays} |")


def test_the_page_names_every_verifier_with_its_exactness():
  lines = [line for line in rows(PAGE, "verifiers") if line.startswith("| `")]
  assert len(lines) == len(VERIFIERS)
  for name, verifier in VERIFIERS.items():
    own = [row for row in lines if f"`{name}`" in row]
    assert len(own) == 1 and own[0].endswith(f"| {verifier.exactness.value} |"), name


@pytest.mark.parametrize("name", FILLING)
def test_the_pages_name_every_way_of_filling_with_its_exactness(name):
  way = get_fill_method(name, 2)
  own = [line for line in rows(PAGE, "fill methods") if line.startswith(f"| `{name}` |")]
  assert len(own) == 1 and f"`{type(way).__name__}`" in own[0]
  assert own[0].endswith(f"| {way.exactness.value} |"), own
  guide = (ROOT / "docs" / "guides" / "infill.md").read_text(encoding="utf-8").splitlines()
  own = [line for line in guide if line.startswith(f"| `{type(way).__name__}")]
  assert len(own) == 1 and own[0].split(" | ")[-1].startswith(way.exactness.value), own


def test_papers_are_linked():
  found = methods.linked("2211.17192, EMNLP 2024 main 1148")
  assert found == "[2211.17192](https://arxiv.org/abs/2211.17192), EMNLP 2024 main 1148"
