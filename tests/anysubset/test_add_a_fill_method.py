"""Follows docs/guides/new_fill_method.md: its file and row pass the tests of every method."""

import ast
import dataclasses
import types
from unittest import mock

import pytest
from absl import flags

from docs.make import methods as tables
from mtjax.bench.infill import get_way
from mtjax.cli.method_names import fill_method_of
from mtjax.registry import fill_rows, methods
from mtjax.types import Exactness
from tests.anysubset.enumerate_fill import distribution_of
from tests.anysubset.table_network import sequential_probs
from tests.anysubset.test_fill_distributions import (
  CONTEXT,
  NETWORK,
  ORDER,
  TABLES,
  VOCAB,
  distance,
  make_problem,
)
from tests.source import ROOT, python_blocks
from tests.test_annotations import unannotated

GUIDE = ROOT / "docs" / "guides" / "new_fill_method.md"


@pytest.fixture(scope="module")
def method():
  """Yields the method of the guide, by its name."""
  code, row = python_blocks(GUIDE)
  assert "from mtjax.anysubset.filling.repeat import Repeat" in GUIDE.read_text(encoding="utf-8")
  module = types.ModuleType("repeat")
  exec(compile(code, GUIDE.name, "exec"), module.__dict__)
  made = eval("{" + row + "}", {**vars(fill_rows), "Repeat": module.Repeat})
  with mock.patch.dict(methods.METHODS, made), mock.patch.dict(fill_rows.FILL_ROWS, made):
    yield methods.get_fill_method("repeat").of_window(3)


def test_the_row_makes_it_known(method):
  assert str(method) == "Repeat(window=3, verifier='chain')"
  assert method.exactness is methods.METHODS["repeat"].exactness is Exactness.LOSSLESS
  assert "| `repeat` | `Repeat` | Drafts a window of repetitions" in tables.filling_table()
  assert "(`repeat`)" in tables.short_filling_table()
  assert "`Repeat(window, verifier)`" in tables.fill_classes_table()


def test_its_signatures_say_their_types():
  assert not unannotated(GUIDE, ast.parse(python_blocks(GUIDE)[0]))


def test_launchers_and_the_comparison_take_it_by_name(method):
  values = flags.FlagValues()
  name = flags.DEFINE_string("method", "self", "", flag_values=values)
  window = flags.DEFINE_integer("window", 4, "", flag_values=values)
  values(["launcher", "--method=repeat", "--window=3"])
  assert fill_method_of(name, window) == get_way("repeat3") == method


def test_it_keeps_the_joint_distribution(method):
  distribution = distribution_of(method, NETWORK, TABLES, make_problem())
  assert distance(distribution.chance, sequential_probs(TABLES, CONTEXT, ORDER, VOCAB)) < 1e-12
  assert max(distribution.passes) <= len(ORDER)
  assert distribution.mean_passes < len(ORDER)  # some drafts are accepted


def test_the_proof_notices_a_verifier_that_is_not_exact(method):
  wrong = dataclasses.replace(method)
  object.__setattr__(wrong, "verifier", "typical")  # which the method itself would refuse
  distribution = distribution_of(wrong, NETWORK, TABLES, make_problem())
  assert distance(distribution.chance, sequential_probs(TABLES, CONTEXT, ORDER, VOCAB)) > 1e-3
