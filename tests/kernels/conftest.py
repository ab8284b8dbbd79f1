"""Fixtures of the TPU kernels' tests."""

import pytest
from jax.experimental.pallas import tpu as pltpu


@pytest.fixture
def interpreting():
  """The TPU interpreter as it is on two cores, with races found; what a failure leaves is gone."""
  pltpu.reset_tpu_interpret_mode_state()
  yield pltpu.InterpretParams(detect_races=True, num_cores_or_threads=2)
  pltpu.reset_tpu_interpret_mode_state()
