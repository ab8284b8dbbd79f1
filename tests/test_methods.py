"""The tables of the pages are complete, and each row has a file, a config and a test."""

import dataclasses
import importlib
import re

import pytest

from docs.make.methods import (
  BEGIN,
  DIFFUSION,
  INFILL,
  PAGE,
  README,
  ROOT,
  TABLES,
  linked,
  with_tables,
)
from mtjax.diffusion import order, revise, transfer, uniform
from mtjax.diffusion.denoising import caches, guidance, machines
from mtjax.registry.denoising.machines import MACHINES
from mtjax.registry.denoising.methods import DENOISERS
from mtjax.registry.denoising.rules import (
  CACHES,
  GUIDANCE,
  ORDERS,
  REVISIONS,
  ROLES,
  TRANSFERS,
)
from mtjax.registry.denoising.uniform_rules import UNIFORM_RULES
from mtjax.registry.methods import METHODS, check_method, decoding, filling, get_fill_method
from mtjax.types import Exactness
from mtjax.verify import VERIFIERS


def rows(path, table):
  """Returns the lines of a generated table, as they stand in the file."""
  text = path.read_text(encoding="utf-8").split(BEGIN.format(name=table))[1]
  return text.split("\n<!--")[0].splitlines()[2:]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_the_pages_show_the_tables(path):
  text = path.read_text(encoding="utf-8")
  assert text == with_tables(path), "run `python -m docs.make.methods` and commit what it wrote"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_file_and_a_test(name):
  for path in (METHODS[name].file, METHODS[name].test):
    assert (ROOT / path).is_file(), f"{name}: {path} does not exist"


@pytest.mark.parametrize("name", decoding())
def test_every_method_of_decoding_has_a_config(name):
  path = METHODS[name].config
  config = importlib.import_module(path.removesuffix(".py").replace("/", "."))
  of_any_drafter = path == "configs/decode/drafter.py"
  assert config.get_config(*[name] * of_any_drafter).method == name


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_in_one_sentence_when_it_pays(name):
  assert re.fullmatch(r"[A-Z][^.]*\.", METHODS[name].pays), METHODS[name].pays


@pytest.mark.parametrize("name", filling())
def test_readme_says_when_a_fill_method_pays(name):
  row = METHODS[name]
  lines = [line for line in rows(README, "fill methods") if f" (`{name}`) |" in line]
  assert len(lines) == 1 and lines[0].endswith(f"| {row.exactness.value} | {row.pays} |")


@pytest.mark.parametrize("name", decoding())
def test_readme_says_when_a_method_of_decoding_pays(name):
  method = METHODS[name]
  lines = [row for row in rows(README, "methods") if f"[`{name}`]({method.config})" in row]
  assert len(lines) == 1 and lines[0].endswith(f"| {method.exactness.value} | {method.pays} |")


def test_the_page_names_every_verifier_with_its_exactness():
  lines = [line for line in rows(PAGE, "verifiers") if line.startswith("| `")]
  assert len(lines) == len(VERIFIERS)
  for name, verifier in VERIFIERS.items():
    named = [row for row in lines if f"`{name}`" in row]
    assert len(named) == 1 and named[0].endswith(f"| {verifier.exactness.value} |"), name


@pytest.mark.parametrize("name", filling())
def test_the_pages_name_every_fill_method_with_its_exactness(name):
  method = get_fill_method(name).of_window(2)
  kind, exactness = type(method).__name__, method.exactness
  assert exactness is METHODS[name].exactness
  assert get_fill_method(name)().exactness is METHODS[name].exactness
  lines = [line for line in rows(PAGE, "fill methods") if line.startswith(f"| `{name}` |")]
  assert len(lines) == 1 and f"`{kind}`" in lines[0]
  assert f"| {exactness.value} |" in lines[0], lines
  lines = [line for line in rows(INFILL, "fill methods") if line.startswith(f"| `{kind}(")]
  assert len(lines) == 1 and lines[0].endswith(f"| {exactness.value} |"), lines


RULES = {f"{role}-{name}": row for role, rows in ROLES.items() for name, row in rows.items()}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_a_file_a_config_a_test_and_says_what_it_keeps(name):
  row = RULES[name]
  for path in (row.file, row.config, row.test):
    assert (ROOT / path).is_file(), f"{name}: {path} does not exist"
  assert row.make.__name__ in (ROOT / row.test).read_text("utf-8"), f"{row.test} does not name it"
  assert (row.exactness is Exactness.LOSSLESS) == (row.reason == "")


@pytest.mark.parametrize(
  ("package", "rows", "others"),
  [
    (order, ORDERS, set()),
    (transfer, TRANSFERS, set()),
    (revise, REVISIONS, set()),
    (caches, CACHES, {"CachePolicy", "Pass", "ShadowCachePolicy", "VectorCachePolicy"}),
    (guidance, GUIDANCE, {"Guidance"}),
    (
      uniform,
      UNIFORM_RULES,
      {"CausalEncoder", "UniformNetwork", "UniformRule", "WholeText", "denoise_uniform"}
      | {"reverse_probs", "stream_uniform", "without_own_entry"},
    ),
    (machines, MACHINES, {"BlockMachine"}),
  ],
)
def test_every_rule_and_cache_has_a_row(package, rows, others):
  assert {row.make.__name__ for row in rows.values()} == set(package.__all__) - others


@pytest.mark.parametrize("name", DENOISERS)
def test_every_method_of_denoising_has_a_config_and_a_line_with_its_exactness(name):
  row = DENOISERS[name]
  config = importlib.import_module(row.config.removesuffix(".py").replace("/", ".")).get_config()
  assert config.model == row.model and config.denoise.to_dict() == dataclasses.asdict(row.denoiser)
  for page in (PAGE, DIFFUSION):
    lines = [line for line in rows(page, "denoising") if f"`{name}`" in line.split("|")[1]]
    assert len(lines) == 1 and f"| {row.denoiser.exactness.value} |" in lines[0]


def test_a_method_of_denoising_decodes_nothing():
  with pytest.raises(ValueError, match="'llada' denoises .*mtjax-decode --config=llada, or"):
    check_method("llada")
  with pytest.raises(ValueError, match="'magic' is not one of: ar,.* that denoise are: llada,"):
    check_method("magic")


def test_a_fill_method_decodes_nothing():
  with pytest.raises(ValueError, match="'self' fills blanks: run it as mtjax-infill --method=s"):
    check_method("self")
  with pytest.raises(ValueError, match="method 'magic' is not one of: (?!.*self,).*lookup"):
    check_method("magic")
  with pytest.raises(ValueError, match="'ar' decodes: mtjax-decode takes it, as --config=ar"):
    get_fill_method("ar")
  with pytest.raises(ValueError, match="fill method 'magic' is not one of: .*self, fused"):
    get_fill_method("magic")


def test_papers_are_linked():
  text = linked("2211.17192, EMNLP 2024 main 1148")
  assert text == "[2211.17192](https://arxiv.org/abs/2211.17192), EMNLP 2024 main 1148"
