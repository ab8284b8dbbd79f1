"""A step of training on four and on eight devices is that of one device."""

import pytest

from mtjax.train.losses.registry import OBJECTIVES
from mtjax.train.optimizers import OPTIMIZERS
from tests.sharding.processes import printed_by

MESHES = ("2 x 2", "2 x 4")
# Of each kind one: tokens in order, in any order, with noise, in two passes, of another length.
# `make test-slow` runs all objectives on both meshes.
SOME = ("next_token", "any_subset", "uniform_diffusion", "canvas_diffusion", "levenshtein_edits")
CASES = (
  *(f"objective {name} on {MESHES[number % 2]}" for number, name in enumerate(SOME)),
  *(f"optimizer {name} on {MESHES[number % 2]}" for number, name in enumerate(OPTIMIZERS)),
  "adapters on 2 x 2",
  "experts on 2 x 4",
  "xlnet on 2 x 4",
)


@pytest.fixture(scope="module")
def found():
  return printed_by("families/training.py", *SOME)


def test_nothing_that_was_measured_is_left_out(found):
  assert set(found) == {*CASES, "mistake"}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_new_parameters_are_those_of_one_device(found, case):
  assert found[case] < 1e-5, f"{case}: differs by {found[case]}"


def test_a_loss_of_some_rows_only_is_noticed(found):
  assert found["mistake"] > 1


@pytest.mark.slow
def test_every_objective_is_that_of_one_device_on_both_meshes():
  found = printed_by("families/training.py")
  cases = {f"objective {name} on {mesh}" for name in OBJECTIVES for mesh in MESHES}
  assert cases <= set(found)
  assert {case: x for case, x in found.items() if case in cases and x > 1e-5} == {}
