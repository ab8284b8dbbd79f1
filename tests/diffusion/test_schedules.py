"""Schedules fall from 1 to 0 with the slope and weight they say; times fill the strata."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion.noising.schedules import SCHEDULES, Clipped, make_schedule
from mtjax.diffusion.noising.times import spread_times


@pytest.mark.parametrize("name", SCHEDULES)
def test_slopes_and_weights_are_those_of_alpha(name):
  schedule = make_schedule(name, power=3.0, window=(0.0, 1.0))
  t = jnp.linspace(0.1, 0.9, 5)
  h = 1e-2
  slope = (schedule.masked(t + h) - schedule.masked(t - h)) / (2 * h)
  np.testing.assert_allclose(schedule.slope(t), slope, rtol=2e-3, atol=2e-4)
  np.testing.assert_allclose(schedule.weight(t), slope / schedule.masked(t), rtol=5e-3)
  np.testing.assert_allclose(schedule.alpha(jnp.array([0.0, 1.0])), [1, 0], atol=1.1e-3)


def test_the_floor_of_llada():
  """p = (1 - 1e-3) t + 1e-3, and a masked token counts 1 / p (2502.09992, its code)."""
  t = jnp.array([0.0, 0.5])
  np.testing.assert_allclose(Clipped().masked(t), [1e-3, 0.5005], rtol=1e-6)
  np.testing.assert_allclose(Clipped().weight(t), [1e3, 1 / 0.5005], rtol=1e-6)


def test_every_run_of_a_batch_has_a_time_of_its_own_stratum():
  first = np.zeros((3, 8), bool)
  first[:, 0] = first[0, 3] = first[2, 5] = True  # five runs
  t = np.asarray(spread_times(jax.random.key(0), jnp.asarray(first)))
  assert (t[0, :3] == t[0, 0]).all() and (t[0, 3:] == t[0, 3]).all() and t[0, 0] != t[0, 3]
  gaps = np.diff(np.sort(t[first]))
  np.testing.assert_allclose(gaps, 0.2, atol=1e-6)
  late = np.asarray(spread_times(jax.random.key(0), jnp.asarray(first), low=0.5, high=0.75))
  np.testing.assert_allclose(late, 0.5 + 0.25 * t, rtol=1e-6)


def test_wrong_settings_are_refused():
  with pytest.raises(ValueError, match="schedule 'sine' is not one of: linear"):
    make_schedule("sine", power=2.0, window=(0.0, 1.0))
  with pytest.raises(ValueError, match="power must be above 0"):
    make_schedule("polynomial", power=0.0, window=(0.0, 1.0))
  for window in ((0.5, 0.2), (0.0, 0.0), (0.5, 1.5)):
    with pytest.raises(ValueError, match="window must be within 0 to 1"):
      Clipped(*window)
