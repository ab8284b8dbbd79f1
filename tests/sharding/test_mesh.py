"""Four devices compute what one computes, in a process of its own."""

import pytest

from tests.sharding.processes import printed_by

CASES = (
  *(f"logits {f} {kind}" for f in ("gated", "untied", "gpt2") for kind in ("float", "int8")),
  "attention over heads",
  "gradient of attention in blocks",
  "arrays gathered for attention in blocks",
  "drafts of a store on the host",
  "gpt2 imported",
  "llama imported",
  "training continued on a mesh",
)


@pytest.fixture(scope="module")
def differences():
  return printed_by("four_devices.py")


@pytest.mark.parametrize("case", CASES)
def test_two_by_two_equals_one_device(differences, case):
  assert differences[case] < 2e-5, f"{case}: differs by {differences[case]} on a 2 x 2 mesh"
