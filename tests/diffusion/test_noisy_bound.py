"""The bound of noisy tokens: tight for exact predictions; the formulas of GIDD and UDLM."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion.noising.bound import noisy_token_loss
from mtjax.diffusion.noising.forward import (
  AbsorbingNoise,
  HybridNoise,
  UniformNoise,
  noisy_tokens,
)
from mtjax.diffusion.noising.schedules import Cosine

P = np.array([0.6, 0.3, 0.1])
V = len(P)
NOISES = (
  AbsorbingNoise(),
  AbsorbingNoise(Cosine()),
  UniformNoise(),
  UniformNoise(Cosine()),
  HybridNoise(0.2),
  HybridNoise(0.3, 1.5),
)


def q_of(at):
  """[T, x, z], by its definition; the last z is the mask."""
  q = np.asarray(at.alpha)[:, None, None] * np.eye(V, V + 1)
  q[:, :, :V] += np.asarray(at.uniform)[:, None, None] / V
  q[:, :, V] += np.asarray(at.mask)[:, None]
  return q


def bound_of(noise, predicted, points=1000, drop=0.0):
  """The mean bound over x of P, z of q and t, if x' is `predicted`; `drop` spoils the noise."""
  u = (np.arange(points) + 0.5) / points
  t, slope = u**2 * (3 - 2 * u), 6 * u * (1 - u)  # more points at the ends
  at = noise.at(jnp.asarray(t, jnp.float32))
  q, shape = q_of(at), (points, V, V + 1)
  log_probs = jnp.broadcast_to(jnp.log(jnp.asarray(predicted, jnp.float32)), (*shape, V))
  x = jnp.broadcast_to(jnp.arange(V)[:, None], shape)
  z = jnp.broadcast_to(jnp.arange(V + 1), shape)
  at = at._replace(mask_rate=at.mask_rate * (1 - drop), uniform_rate=at.uniform_rate * (1 - drop))
  at = jax.tree.map(lambda a: jnp.broadcast_to(a[:, None, None], shape), at)
  nats = np.asarray(noisy_token_loss(log_probs, x, z, at))
  inner = np.sum(P[:, None] * np.where(q > 0, q * nats, 0), axis=(1, 2))
  return float(np.mean(inner * slope))


@pytest.mark.parametrize("noise", NOISES, ids=repr)
@pytest.mark.parametrize("predicted", [P, np.array([0.5, 0.3, 0.2])], ids=["exact", "other"])
def test_the_bound_of_one_token_is_its_cross_entropy(noise, predicted):
  """One token of a text of one: what is predicted is its distribution, and the bound is tight."""
  expected = -np.sum(P * np.log(predicted))  # 0.8979457, the entropy, and 0.9380240
  assert bound_of(noise, predicted) == pytest.approx(expected, abs=3e-4)


def test_a_wrong_weight_is_noticed():
  for noise in NOISES:
    assert bound_of(noise, P, drop=0.01) != pytest.approx(-np.sum(P * np.log(P)), abs=3e-3)


def test_the_weights_of_gidd():
  """w_mask = 1 / (t (1 - t)), w_unif and w_x, as 2503.04482 and its code write them."""
  t, share, gamma = 0.3, 0.2, 1.0
  at = HybridNoise(share, gamma).at(jnp.float32(t))
  c = 2**gamma * share / (1 - share) * (t * (1 - t)) ** (gamma / 2)
  slope = gamma / 2 * (1 - 2 * t) / (t * (1 - t)) * c
  assert float(at.alpha + at.mask + at.uniform) == pytest.approx(1)
  assert float(at.mask_rate / at.mask) == pytest.approx(1 / (t * (1 - t)), rel=1e-5)
  other = (c + (1 - t) * slope) / ((1 - t) * c)
  assert float(at.uniform_rate / at.uniform) == pytest.approx(other, rel=1e-5)
  same = (c + (1 - t) * slope) / (V * (1 - t) * (1 - t + c / V))
  assert float(at.uniform_rate / V / (at.alpha + at.uniform / V)) == pytest.approx(same, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 2e-9])
def test_without_uniform_tokens_gidd_is_masked_diffusion(share):
  """p_u to 0: KL = (1 - t) CE, with weight 1 / (t (1 - t)): the loss is CE / t."""
  t = jnp.array([0.1, 0.5, 0.9])
  log_probs = jnp.broadcast_to(jnp.log(jnp.asarray(P, jnp.float32)), (3, V))
  x = jnp.array([2, 0, 1])
  masked = noisy_token_loss(log_probs, x, jnp.full(3, V), HybridNoise(share).at(t))
  np.testing.assert_allclose(masked, -np.log(P[np.asarray(x)]) / t, rtol=1e-5)
  if not share:
    np.testing.assert_array_equal(noisy_token_loss(log_probs, x, x, HybridNoise(share).at(t)), 0)


def test_uniform_noise_is_the_bound_of_udlm():
  """UDLM 2412.10193, eq. 15, term by term, at t = 0.4 (alpha = 0.6, alpha' = -1)."""
  t, x, z = 0.4, 0, 1
  alpha = 1 - t
  bar = V * alpha * np.eye(V)[x] + 1 - alpha
  bar_predicted = V * alpha * P + 1 - alpha
  ratio = bar / bar[z] * np.log(bar_predicted[z] * bar / (bar_predicted * bar[z]))
  expected = -1 / (V * alpha) * (V / bar[z] - V / bar_predicted[z] - ratio.sum())
  at = UniformNoise().at(jnp.float32(t))
  found = noisy_token_loss(jnp.log(jnp.asarray(P, jnp.float32)), jnp.array(x), jnp.array(z), at)
  assert float(found) == pytest.approx(expected, rel=1e-5)


def test_noisy_tokens_have_the_shares_of_the_noise():
  at = HybridNoise(0.3).at(jnp.full((1, 40000), 0.5, jnp.float32))
  token = jnp.ones((1, 40000), jnp.int32)
  sample = functools.partial(noisy_tokens, vocab_size=V, mask=V)
  z = np.asarray(sample(jax.random.key(0), token, at))
  share = np.bincount(z[0], minlength=V + 1) / z.size
  one = jax.tree.map(lambda a: a[0, :1], at)
  np.testing.assert_allclose(share, q_of(one)[0, 1], atol=0.012)
