"""Filling and denoising on four and on eight devices give the tokens of one device."""

import pytest

from mtjax.registry.denoising.rules import ROLES
from mtjax.registry.methods import filling
from tests.sharding.processes import printed_by

# Each keeps something else from pass to pass. `make test-slow` runs every rule and every method.
SOME = (
  "loop exact",
  "loop any_order",
  "loop similarity",
  "machine block_buffer",
  "uniform accept_or_renoise",
  "fill self",
)


def differences(*names: str) -> dict[str, float]:
  """Returns how many tokens, passes of tokens, and numbers of passes differ, by run and mesh."""
  return printed_by("families/canvases.py", *names)


@pytest.fixture(scope="module")
def some():
  return differences(*SOME)


@pytest.mark.parametrize("name", SOME)
def test_tokens_are_those_of_one_device(some, name):
  (found,) = (wrong for run, wrong in some.items() if run.startswith(name))
  assert found == 0


def test_keys_that_devices_write_to_the_wrong_row_are_noticed(some):
  assert some["mistake"] != 0


@pytest.mark.slow
def test_tokens_of_every_method_are_those_of_one_device():
  found = differences()
  words = {word for name in found for word in name.split()}
  roles = ("order", "transfer", "revise", "cache", "guidance", "machine", "uniform")
  known = {name for role in roles for name in ROLES[role]} | set(filling())
  assert known <= words
  assert {name: wrong for name, wrong in found.items() if wrong and name != "mistake"} == {}
