"""Sampling and verification of logits whose vocabulary is split over devices."""

import pytest

from mtjax.verify import VERIFIERS
from tests.sharding.processes import printed_by


@pytest.fixture(scope="module")
def found():
  """{case: count}: what differs from one device, and exchanges of arrays as wide as V."""
  return printed_by("vocabulary_on_four.py")


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_verifier_decides_as_on_one_device(found, name):
  assert found[f"verifier {name}"] == 0


def test_what_samples_gives_the_numbers_of_one_device(found):
  cases = {name: count for name, count in found.items() if not name.startswith("verifier ")}
  assert len(cases) > 15 and {"constraint", "40 different tokens", "argmax of equals"} <= set(cases)
  assert not {name: count for name, count in cases.items() if count}


def test_no_row_of_the_vocabulary_is_exchanged_and_the_count_would_see_it(found):
  assert found["exchanges of logits in sampling"] == 0
  assert found["exchanges of logits in verifiers"] == 0
  assert found["useless: no gather is seen"] == 0, "XLA gathers nothing any more: compare with that"
