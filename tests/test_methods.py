"""Nothing is advertised that does not run: the README's table is the library's, and whole."""

import importlib
from pathlib import Path

import pytest

from docs.make.methods import README, with_table
from mtjax.anysubset.filling.names import METHODS as FILLING
from mtjax.anysubset.filling.names import method_named
from mtjax.registry.methods import METHODS
from mtjax.verify import VERIFIERS

ROOT = Path(README).parent


def test_the_readme_shows_the_table():
  text = README.read_text(encoding="utf-8")
  assert text == with_table(text), "run `python -m docs.make.methods` and commit README.md"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_file_a_config_and_a_test(name):
  method = METHODS[name]
  for path in (method.file, method.config, method.test):
    assert (ROOT / path).is_file(), f"{name}: {path} does not exist"
  config = importlib.import_module(method.config.removesuffix(".py").replace("/", "."))
  assert config.get_config().method == name


def test_the_readme_names_every_verifier_with_its_exactness():
  lines = README.read_text(encoding="utf-8").splitlines()
  rows = [line for line in lines if line.startswith("| `")]
  for name, verifier in VERIFIERS.items():
    own = [row for row in rows if f"`{name}`" in row]
    assert len(own) == 1 and own[0].endswith(f"| {verifier.exactness.value} |"), name


@pytest.mark.parametrize("name", FILLING)
def test_the_readme_names_every_way_of_filling_with_its_exactness(name):
  way = method_named(name, 2)
  lines = README.read_text(encoding="utf-8").splitlines()
  own = [line for line in lines if line.startswith(f"| `{type(way).__name__}")]
  assert len(own) == 1 and own[0].split(" | ")[-1].startswith(way.exactness.value), own
