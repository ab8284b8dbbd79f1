"""Every stratum of the window of rates has one row of a step, for all parts and devices."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mtjax.train.losses.any_subset import any_subset_loss
from mtjax.train.optimizers import OptimizerConfig, Schedule, make_optimizer
from mtjax.train.step import init_state, make_step
from tests.forked import launch
from tests.train.strata import MASKING, MODEL, ROWS, one_text, rows_of_strata

ONE_EACH = [1.0] * ROWS


@pytest.mark.parametrize("accumulate", [1, 4])
def test_parts_of_a_step_share_the_strata_of_its_batch(accumulate):
  assert rows_of_strata(accumulate) == ONE_EACH


def test_rates_that_each_part_stratifies_alone_are_noticed():
  def part_by_part(loss):
    def total(params, batch):
      return loss.total(params, loss.prepare(batch, jax.random.key(0), 0))

    return dataclasses.replace(loss, total=total, prepare=lambda batch, key, step: batch)

  assert rows_of_strata(1, part_by_part) == ONE_EACH
  assert rows_of_strata(4, part_by_part) != ONE_EACH


def test_the_number_of_parts_changes_rounding_only():
  optimizer = make_optimizer(OptimizerConfig(), Schedule(9, 0, 0))
  state = init_state(MODEL, optimizer, seed=0)
  loss = any_subset_loss(MODEL, dataclasses.replace(MASKING, queries=3))
  (one, metrics), (four, of_parts) = (
    jax.jit(make_step(loss, optimizer, accumulate=parts))(state, one_text(4, 9)) for parts in (1, 4)
  )
  assert metrics["weight"] == of_parts["weight"] > 4
  for name in metrics:
    np.testing.assert_allclose(metrics[name], of_parts[name], rtol=1e-5)
  for a, b in zip(jax.tree.leaves(one.opt_state), jax.tree.leaves(four.opt_state), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.fixture(scope="module")
def four_devices():
  code, shown, errors = launch("tests.train.four_devices")
  assert code == 0, errors[-3000:]
  return json.loads(shown)


def test_devices_share_the_strata_of_a_step(four_devices):
  assert four_devices["strata"] == ONE_EACH


def test_a_batch_that_does_not_divide_is_an_error(four_devices):
  assert "6 rows do not divide over the devices" in four_devices["refusal"]


def test_four_devices_make_the_choices_of_one(four_devices):
  assert four_devices["choices"] == 0
