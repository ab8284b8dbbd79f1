"""A schedule for each token: its bound is tight for exact predictions, and its powers can learn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion.noising.token_schedules import (
  leave_one_out,
  load_powers,
  log_chance_of_masks,
  masked_by_token,
  token_schedule_loss,
)

P = np.array([0.6, 0.3, 0.1])
POWER = np.array([0.5, 1.0, 2.0])
TIMES = (np.arange(4000) + 0.5) / 4000


def bound(predicted, power=POWER):
  """The mean bound of one token of P, where `predicted(t)` is what a mask is said to be."""
  t, x = (a.astype(np.float32) for a in np.meshgrid(TIMES, np.arange(3), indexing="ij"))
  x = jnp.asarray(x, jnp.int32)
  log_probs = jnp.log(jnp.asarray(predicted(TIMES), jnp.float32))[:, None]
  log_probs = jnp.broadcast_to(log_probs, (*t.shape, 3))
  power = jnp.asarray(power, jnp.float32)
  nats = token_schedule_loss(log_probs, x, power) / t
  return float(np.mean(np.sum(P * np.asarray(masked_by_token(t, x, power) * nats), axis=1)))


def posterior(t, power=POWER):
  """What a masked token is: tokens of small powers are masked more often."""
  joint = P * t[:, None] ** power
  return joint / joint.sum(axis=1, keepdims=True)


def test_the_bound_is_tight_for_the_posterior_of_each_time():
  """A token alone: its entropy, 0.8979457."""
  entropy = -np.sum(P * np.log(P))
  assert bound(posterior) == pytest.approx(entropy, abs=2e-3)
  assert bound(lambda t: np.tile(P, (len(t), 1))) > entropy + 0.02  # true at t = 1 only


def test_equal_powers_are_a_shared_schedule():
  other = np.array([0.5, 0.3, 0.2])
  for power in (1.0, 2.0):
    found = bound(lambda t: np.tile(other, (len(t), 1)), np.full(3, power))
    assert found == pytest.approx(-np.sum(P * np.log(other)), abs=2e-3)
  one = token_schedule_loss(jnp.log(jnp.asarray(other)), jnp.int32(2), jnp.full(3, 2.0))
  assert float(one) == pytest.approx(-np.log(0.2) * 2, rel=1e-5)


def loss_of(power, masks, t, token, weights):
  """A loss of maskings that depends on the powers as well."""
  return jnp.sum(masks * weights * power[token] / t, axis=1) ** 2


@pytest.mark.parametrize("judged", [True, False])
def test_the_gradient_of_the_powers_is_unbiased(judged):
  """By all pairs of maskings of 3 tokens; without the score of the masks it is another one."""
  token, t = jnp.array([[0, 1, 1]]), jnp.full((1, 3), 0.4)
  weights, power = jnp.array([1.0, 0.5, 2.0]), jnp.array([0.7, 1.5, 1.0])
  masks = jnp.array(list(itertools.product([False, True], repeat=3)))
  each = [jnp.repeat(x, 8, axis=0) for x in (t, token)]

  def chances(power):
    return jnp.exp(log_chance_of_masks(*each, masks, power))

  def expected(power):
    return jnp.sum(chances(power) * loss_of(power, masks, *each, weights))

  def estimate(power, i, j):
    pair = masks[jnp.array([i, j])]
    losses = loss_of(power, pair, each[0][:2], each[1][:2], weights)
    log_chances = log_chance_of_masks(each[0][:2], each[1][:2], pair, power)
    return leave_one_out(losses[:, None], (log_chances if judged else 0 * log_chances)[:, None])

  assert float(chances(power).sum()) == pytest.approx(1, abs=1e-6)
  i, j = jnp.meshgrid(jnp.arange(8), jnp.arange(8), indexing="ij")
  grads = jax.vmap(jax.vmap(jax.grad(estimate), (None, 0, 0)), (None, 0, 0))(power, i, j)
  chance = chances(power)
  mean = jnp.einsum("i,j,ijv->v", chance, chance, grads)
  exact = jax.grad(expected)(power)
  assert np.allclose(mean, exact, rtol=1e-4, atol=1e-5) == judged


def test_files_that_hold_other_powers_are_refused(tmp_path):
  for powers in (np.ones(2), np.array([1.0, 0.0, 2.0])):
    np.save(tmp_path / "powers.npy", powers)
    with pytest.raises(ValueError, match="powers.npy must hold 3 powers above 0, one for each"):
      load_powers(str(tmp_path / "powers.npy"), 3)
