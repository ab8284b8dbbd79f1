"""The mixture: densities integrate, the bound is below the log-density, samples follow it."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.recipes.resgen.mixture import Mixture
from mtjax.recipes.resgen.quantizer import ResidualQuantizer

LINE = Mixture(
  jnp.array([0.3, -0.5, 1.0]),
  jnp.array([[-1.0], [0.4], [2.0]]),
  jnp.log(jnp.array([0.5, 0.2, 1.0])),
)


def batch(width, seed=0, rows=50, components=4):
  keys = jax.random.split(jax.random.key(seed), 4)
  mixture = Mixture(
    jax.random.normal(keys[0], (rows, components)),
    jax.random.normal(keys[1], (rows, components, width)),
    0.3 * jax.random.normal(keys[2], (rows, components)),
  )
  return mixture, 2 * jax.random.normal(keys[3], (rows, width))


def test_the_density_integrates_to_one():
  grid = np.linspace(-8, 10, 20_001)
  density = np.exp(np.asarray(LINE.log_density(grid[:, None].astype("f4")), np.float64))
  assert abs(np.trapezoid(density, grid) - 1) < 1e-4
  mixture, _ = batch(2, rows=1)
  axis = np.linspace(-7, 7, 301)
  plane = np.array(list(itertools.product(axis, axis)), np.float32)
  density = np.exp(np.asarray(jax.tree.map(lambda x: x[0], mixture).log_density(plane)))
  assert abs(density.astype(np.float64).sum() * (axis[1] - axis[0]) ** 2 - 1) < 1e-3


@pytest.mark.parametrize("width", [1, 5])
def test_the_bound_is_below_the_log_density(width):
  mixture, z = batch(width)
  gap = np.asarray(mixture.log_density(z) - mixture.bound(z))
  assert (gap > -1e-4).all() and gap.max() > 0.1


def test_the_gap_is_the_divergence_to_the_posterior():
  """log p(z) - bound = KL(q || p(component | z)), computed in float64."""
  mixture, z = batch(3)
  weight = np.asarray(jax.nn.log_softmax(mixture.logits), np.float64)
  density = np.asarray(mixture.component_log_density(z), np.float64)
  log_q = density - np.logaddexp.reduce(density, axis=-1, keepdims=True)
  joint = weight + density
  posterior = joint - np.logaddexp.reduce(joint, axis=-1, keepdims=True)
  divergence = (np.exp(log_q) * (log_q - posterior)).sum(-1)
  np.testing.assert_allclose(mixture.log_density(z) - mixture.bound(z), divergence, atol=2e-4)


def test_the_bound_is_the_log_density_for_equal_weights():
  mixture, z = batch(3)
  equal = mixture.replace(logits=jnp.zeros_like(mixture.logits))
  np.testing.assert_allclose(equal.bound(z), equal.log_density(z), atol=1e-4)


def test_the_check_sees_a_bound_without_the_entropy():
  """Without -log q the value is below by the entropy; with it twice it is above."""
  mixture, z = batch(3)
  log_q = jax.nn.log_softmax(mixture.component_log_density(z))
  entropy = -jnp.sum(jnp.exp(log_q) * log_q, axis=-1)
  assert (np.asarray(mixture.bound(z) + entropy - mixture.log_density(z)) > 1e-3).any()


def test_far_components_have_finite_gradients():
  far = dataclasses.replace(LINE, mean=LINE.mean * 1e4)

  def loss(mixture):
    return -mixture.bound(jnp.array([0.1]))

  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.grad(loss)(far)))


def test_codes_have_the_mass_of_their_cell_and_the_bound_is_below_it():
  """On a line the codes of all depths are intervals: masses sum to 1, and Jensen holds for each.

  log P(cell) >= mean over the cell of the bound + log of its size, for every cell that ends.
  """
  books = jnp.array([[[0.0], [2.0], [-2.0]], [[0.0], [0.5], [-0.5]]])
  quantizer = ResidualQuantizer(books)
  grid = (np.arange(-60_000, 100_000) + 0.5) * 1e-4
  tokens = np.asarray(quantizer.encode(jnp.asarray(grid[:, None], jnp.float32)))
  density = np.exp(np.asarray(LINE.log_density(grid[:, None].astype("f4")), np.float64))
  bound = np.asarray(LINE.bound(grid[:, None].astype("f4")), np.float64)
  masses, inner = [], 0
  for code in sorted(set(map(tuple, tokens.tolist()))):
    cell = (tokens == code).all(1)
    masses.append(density[cell].sum() * 1e-4)
    if not cell[[0, -1]].any():
      inner += 1
      assert bound[cell].mean() + math.log(cell.sum() * 1e-4) <= math.log(masses[-1]) + 1e-6
  assert len(masses) == 9 and inner == 7 and abs(sum(masses) - 1) < 1e-4


def test_samples_follow_the_density():
  rows = 4000
  many = jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape)), LINE)
  z = np.sort(np.asarray(many.sample(jax.random.key(1)))[:, 0])
  weight = np.asarray(jax.nn.softmax(LINE.logits), np.float64)
  scale = np.exp(np.asarray(LINE.log_scale, np.float64))
  cdf = sum(
    w * 0.5 * (1 + np.array([math.erf(x) for x in (z - m) / s / 2**0.5]))
    for w, m, s in zip(weight, np.asarray(LINE.mean)[:, 0], scale, strict=True)
  )
  distance = np.abs(cdf - (np.arange(rows) + 0.5) / rows).max()
  assert distance < 1.95 / rows**0.5  # 0.1 % of Kolmogorov's distribution
  cold = np.asarray(many.sample(jax.random.key(1), 0.0))[:, 0]
  assert set(np.unique(cold)) == {np.float32(mean) for mean in (-1.0, 0.4, 2.0)}
