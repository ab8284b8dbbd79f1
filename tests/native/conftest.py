"""The compiled library, made once in the user's cache before tests point elsewhere."""

import pytest

from mtjax.native import build, support


@pytest.fixture(scope="session")
def native():
  """Returns the loaded library; tests that use it need a C++ compiler (`apt-get install g++`)."""
  if reason := support():
    pytest.skip(f"native code cannot be used: {reason}")
  return build.library()
