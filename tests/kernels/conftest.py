"""Fixtures of the kernels' tests."""

import inspect

import jax
import pytest
from jax.experimental.pallas import tpu as pltpu

from mtjax.native.build import allowed_cores


@pytest.fixture
def interpreting():
  """The TPU interpreter with two cores and detection of races, reset after a failure."""
  if allowed_cores() < 2:
    pytest.skip("on one CPU the interpreter's two cores wait for each other: run it on two")
  pltpu.reset_tpu_interpret_mode_state()
  yield pltpu.InterpretParams(detect_races=True, num_cores_or_threads=2)
  pltpu.reset_tpu_interpret_mode_state()


@pytest.fixture
def mutate():
  """Returns mutate(module, old, new), which runs a module's changed source until the test ends."""
  changed = []

  def mutate(module, old, new):
    source = inspect.getsource(module)
    assert source.count(old) >= 1, f"{module.__name__} has no {old!r}: mend the mutation"
    changed.append((module, source))
    exec(compile(source.replace(old, new), module.__file__, "exec"), module.__dict__)

  yield mutate
  for module, source in changed:
    exec(compile(source, module.__file__, "exec"), module.__dict__)
  jax.clear_caches()
