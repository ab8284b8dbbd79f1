"""On a mesh, passes send activations alone, and public functions give the texts of one device."""

import pytest

from tests.sharding.processes import printed_by

# Numbers in the activations of a device's two rows, at most 512 entries of 16. The keys of a layer
# are 24,576 per device; its part of the logits is 20,480 in filling and 131,072 in denoising. In a
# pass of stacked layers, with two entries per row, they are 16,384 and 8,192, and a device that
# gathered what it reads of a layer would get 32,768.
ACTIVATIONS = 2 * 512 * 16
TEXTS = (
  "infill",
  "infill's warning",
  "history",
  "records of the history",
  "likelihoods of more masks than a batch",
  "denoise",
  "a trace",
  "on the mesh of the parameters",
  "programs compiled for it",
  "frames",
  "events",
)


@pytest.fixture(scope="module")
def found():
  return printed_by("families/passes.py")


@pytest.mark.parametrize("family", ["filling", "denoising", "scanned", "apart"])
def test_neither_logits_nor_keys_are_sent(found, family):
  assert 0 < found[family]["pass"] <= ACTIVATIONS


@pytest.mark.parametrize("family", ["filling", "denoising", "scanned", "apart"])
def test_logits_that_every_device_gets_are_seen(found, family):
  assert found[family]["mistake"] > ACTIVATIONS


def test_nothing_that_was_compared_is_left_out(found):
  assert set(found["texts"]) == set(TEXTS)


@pytest.mark.parametrize("case", TEXTS)
def test_texts_are_those_of_one_device(found, case):
  assert found["texts"][case] == 0
