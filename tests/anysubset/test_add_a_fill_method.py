"""docs/guides/new_fill_method.md, done: its file and its row, through the proof of every method."""

import dataclasses
import types
from unittest import mock

import pytest

from docs.make.methods import fill_methods_table
from mtjax.anysubset.filling import names
from mtjax.types import Exactness
from tests.anysubset.enumerate_fill import distribution_of
from tests.anysubset.table_network import sequential_probs
from tests.anysubset.test_fill_distributions import (
  GIVEN,
  NETWORK,
  ORDER,
  TABLES,
  VOCAB,
  distance,
  make_problem,
)
from tests.source import ROOT, python_blocks

GUIDE = ROOT / "docs" / "guides" / "new_fill_method.md"


@pytest.fixture(scope="module")
def method():
  """The method of the guide, by its name."""
  code, row = python_blocks(GUIDE)
  assert "from mtjax.anysubset.filling.repeat import Repeat" in GUIDE.read_text(encoding="utf-8")
  module = types.ModuleType("repeat")
  exec(compile(code, GUIDE.name, "exec"), module.__dict__)
  made = eval("{" + row + "}", {**vars(names), "Repeat": module.Repeat})
  with mock.patch.dict(names.METHODS, made):
    yield names.get_fill_method("repeat", 3)


def test_the_row_makes_it_known(method):
  assert str(method) == "Repeat(window=3, verifier='chain')"
  assert method.exactness is Exactness.LOSSLESS
  assert "| `repeat` | `Repeat` | Drafts a window of repetitions" in fill_methods_table()


def test_it_keeps_the_joint_distribution(method):
  found = distribution_of(method, NETWORK, TABLES, make_problem())
  assert distance(found.chance, sequential_probs(TABLES, GIVEN, ORDER, VOCAB)) < 1e-12
  assert max(found.passes) <= len(ORDER)
  assert found.mean_passes < len(ORDER)  # some drafts are accepted


def test_the_proof_notices_a_verifier_that_is_not_exact(method):
  wrong = dataclasses.replace(method)
  object.__setattr__(wrong, "verifier", "typical")  # which the method itself would refuse
  found = distribution_of(wrong, NETWORK, TABLES, make_problem())
  assert distance(found.chance, sequential_probs(TABLES, GIVEN, ORDER, VOCAB)) > 1e-3
