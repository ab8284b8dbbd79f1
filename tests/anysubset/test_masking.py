"""Target tokens of a training row: rates, their window and warm-up, spans, the scored choice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.anysubset.masking import Masking, choose

KEYS = jax.random.split(jax.random.key(0), 200)


def rates(masking, step, batch=8):
  """Returns rates [keys, batch]."""
  return np.asarray(jax.vmap(lambda key: masking.rates(key, batch, jnp.asarray(step)))(KEYS))


def sampled(masking, open_, step=0):
  return np.asarray(jax.vmap(lambda key: masking.sample(key, open_, jnp.asarray(step)))(KEYS))


@pytest.mark.parametrize(
  ("step", "low", "high"), [(0, 0.15, 0.15), (50, 0.5, 0.57), (100, 0.85, 0.99), (900, 0.85, 0.99)]
)
def test_the_window_moves_from_start_to_end(step, low, high):
  sampled_rates = rates(Masking(start=(0.15, 0.15), end=(0.85, 0.99), warmup=100), step)
  assert low - 1e-6 <= sampled_rates.min() and sampled_rates.max() <= high + 1e-6
  assert sampled_rates.mean() == pytest.approx((low + high) / 2, abs=2e-3)


def test_without_warm_up_the_window_is_the_last_one():
  sampled_rates = rates(Masking(start=(0.0, 0.0), end=(0.4, 0.6)), 0)
  assert 0.4 <= sampled_rates.min() and sampled_rates.max() <= 0.6


def test_rates_are_stratified_over_the_batch_and_a_rows_part_changes():
  sampled_rates = rates(Masking(end=(0.2, 0.6)), 0)
  part = np.floor((sampled_rates - 0.2) / 0.4 * 8).astype(int)
  np.testing.assert_array_equal(np.sort(part, axis=1), np.tile(np.arange(8), (len(KEYS), 1)))
  # A row that always had one part would see one rate: each sees them all.
  assert all(len(set(column)) == 8 for column in part.T)


def test_the_number_of_targets_is_the_rate_times_the_open_entries():
  open_ = jnp.asarray(np.arange(40) < np.array([40, 13, 0])[:, None])
  is_target = sampled(Masking(end=(0.3, 0.3)), open_)
  assert not (is_target & ~np.asarray(open_)).any()
  np.testing.assert_array_equal(is_target.sum(axis=2), [[12, 4, 0]] * len(KEYS))
  # All open entries are targets equally often.
  np.testing.assert_allclose(is_target[:, 0].mean(axis=0), 0.3, atol=0.13)


def runs(is_target):
  """Returns the mean length of runs of targets."""
  edges = np.diff(np.pad(is_target, ((0, 0), (0, 0), (1, 1))).astype(int), axis=2)
  return is_target.sum() / (edges == 1).sum()


def test_spans_make_runs_of_targets():
  open_ = jnp.ones((4, 256), bool)
  single = runs(sampled(Masking(end=(0.2, 0.2)), open_))
  assert single == pytest.approx(1 / 0.8, abs=0.05)
  spans = runs(sampled(Masking(end=(0.2, 0.2), spans=1.0, span=8.0), open_))
  # Runs have 8 tokens on average; one in five follows another directly, and the last one is cut.
  assert 7 < spans < 10.5
  half = sampled(Masking(end=(0.2, 0.2), spans=0.5, span=8.0), open_)
  assert single + 0.3 < runs(half) < spans - 0.5


def test_the_weighted_sum_over_scored_targets_is_unbiased():
  rng = np.random.default_rng(0)
  is_target = rng.random((3, 20)) < np.array([[0.9], [0.5], [0.1]])
  mask = jnp.asarray(is_target)
  value = rng.normal(size=is_target.shape)
  chosen, weight = (np.asarray(x) for x in jax.vmap(lambda k: choose(k, mask, 6))(KEYS))
  assert chosen.shape == (len(KEYS), 3, 6)
  for row in range(3):
    real = chosen[:, row] >= 0
    np.testing.assert_array_equal(real.sum(axis=1), min(6, is_target[row].sum()))
    assert is_target[row][chosen[:, row][real]].all()
    assert all(len(set(x[k])) == k.sum() for x, k in zip(chosen[:, row], real, strict=True))
    sums = (np.where(real, value[row][chosen[:, row]], 0)).sum(axis=1) * weight[:, row]
    error = sums.std() / np.sqrt(len(KEYS))
    assert abs(sums.mean() - value[row][is_target[row]].sum()) < 4 * error + 1e-5
    assert weight[0, row] == pytest.approx(max(is_target[row].sum() / 6, 1))


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(start=(0.5, 0.2)), "start must be a window"),
    (dict(end=(0.5, 1.2)), "end must be a window"),
    (dict(spans=2.0), "spans must be a probability"),
    (dict(span=0.5), "span must be at least 1"),
    (dict(queries=-1), "queries must not be negative"),
  ],
)
def test_refusals(fields, message):
  with pytest.raises(ValueError, match=message):
    Masking(**fields)
