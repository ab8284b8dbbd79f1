"""Reverse steps of uniform noise by enumeration: formulas, marginals in time, and samples."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mtjax.diffusion.noising.forward import AbsorbingNoise, HybridNoise, NoiseAt, UniformNoise
from mtjax.diffusion.noising.schedules import Cosine
from mtjax.diffusion.rule import rule
from mtjax.diffusion.uniform import (
  MixturePosterior,
  NoisePosterior,
  denoise_uniform,
  reverse_probs,
  without_own_entry,
)
from mtjax.models import Model, TransformerConfig, uniform_layers

V, L = 3, 2
NOISES = {
  "uniform": UniformNoise(),
  "cosine": UniformNoise(Cosine()),
  "hybrid": HybridNoise(0.3, 1.0),
  "hybrid of exponent 2": HybridNoise(0.2, 2.0),
  "masks": AbsorbingNoise(),
}
TIMES = [(1.0, 0.75), (0.9, 0.4), (0.5, 0.1), (0.3, 0.0)]  # t and s
UNITS = np.eye(V)


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def shares(noise, t) -> NoiseAt:
  """Returns the noise at a time, without any at time 0; rates are those within 0 to 1."""
  if t == 0:
    return NoiseAt(*(np.float64(x) for x in (1, 0, 0, 0, 0)))
  return NoiseAt(*(np.asarray(x, np.float64) for x in noise.at(jnp.asarray(t, jnp.float64))))


def matrix(at):
  """Returns q_t(z | x); x and z are tokens or the mask, which stays or jumps as tokens do."""
  uniform = np.append(np.full(V, at.uniform / V), 0)
  return at.alpha * np.eye(V + 1) + uniform + at.mask * np.append(np.zeros(V), 1)


def bayes(x, z, now, after):
  """Returns q(z_s | z_t, x) for a distribution x of the clean token, from matrices alone."""
  prior = np.append(x, 0) @ matrix(after)
  joint = prior * np.linalg.solve(matrix(after), matrix(now))[:, z]
  return joint / joint.sum()


def ours(x, z, now, after):
  return np.asarray(reverse_probs(jnp.asarray(x), jnp.asarray(z), now, after))


@pytest.mark.parametrize("name", NOISES)
def test_a_reverse_step_is_bayes_of_the_forward_matrices(name):
  rng = np.random.default_rng(0)
  for t, s in TIMES:
    now, after = shares(NOISES[name], t), shares(NOISES[name], s)
    for x in [*UNITS, *rng.dirichlet(np.ones(V), 4)]:
      for z in range(V + 1):
        if (np.append(x, 0) @ matrix(now))[z] > 0:
          np.testing.assert_allclose(ours(x, z, now, after), bayes(x, z, now, after), atol=1e-12)


def test_a_step_of_uniform_noise_is_that_of_the_paper():
  for t, s in TIMES[1:]:
    now, after = shares(NOISES["uniform"], t), shares(NOISES["uniform"], s)
    a, b = now.alpha, after.alpha
    for x, z in itertools.product(np.random.default_rng(1).dirichlet(np.ones(V), 3), range(V)):
      # UDLM 2412.10193, sec. 4.
      top = V * a * UNITS[z] * x + (a / b - a) * UNITS[z] + (b - a) * x
      top += (b - a) * (1 - b) / (V * b)
      expected = top / (V * a * x[z] + 1 - a)
      np.testing.assert_allclose(ours(x, z, now, after), np.append(expected, 0), atol=1e-12)


@pytest.mark.parametrize("name", NOISES)
def test_steps_follow_the_rates_of_the_noise(name):
  # The chain of many small steps of the rates, from s to t.
  s, t, steps = 0.2, 0.7, 20_000
  step, chain = (t - s) / steps, np.eye(V + 1)
  to = np.concatenate([np.full((steps, V), 1 / V), np.zeros((steps, 1))], axis=1)
  at = NOISES[name].at(jnp.linspace(s + step / 2, t - step / 2, steps))
  rates = np.asarray(at.uniform_rate)[:, None] * to
  rates[:, V] += np.asarray(at.mask_rate)
  for rate in rates:
    chain = chain @ (np.eye(V + 1) + step * (rate - rate.sum() * np.eye(V + 1)))
  now, after = shares(NOISES[name], t), shares(NOISES[name], s)
  for z in range(V + 1):
    x = np.array([0.5, 0.3, 0.2])
    joint = (np.append(x, 0) @ matrix(after)) * chain[:, z]
    if joint.sum() > 0:
      np.testing.assert_allclose(ours(x, z, now, after), joint / joint.sum(), atol=2e-4)


def test_a_token_that_the_prediction_excludes_stays():
  now, after = shares(NOISES["masks"], 0.6), shares(NOISES["masks"], 0.3)
  np.testing.assert_array_equal(ours(UNITS[0], 2, now, after), np.append(UNITS[2], 0))


@pytest.mark.parametrize("name", NOISES)
def test_a_posterior_without_its_entry_makes_the_mean_of_steps(name):
  p = np.random.default_rng(2).dirichlet(np.ones(V))  # of the clean token, before z is seen
  for (t, s), z in itertools.product(TIMES, range(V + 1)):
    now, after = shares(NOISES[name], t), shares(NOISES[name], s)
    likelihood = matrix(now)[:V, z]
    if not (p * likelihood).sum() > 0:
      continue
    posterior = p * likelihood / (p * likelihood).sum()
    own = np.asarray(without_own_entry(jnp.asarray(posterior), jnp.asarray(z), now))
    mean = sum(posterior[x] * bayes(UNITS[x], z, now, after) for x in range(V) if posterior[x] > 0)
    np.testing.assert_allclose(ours(own, z, now, after), mean, atol=1e-12)


def test_noise_is_part_of_the_program_and_the_temperature_is_an_argument():
  one, other = (NoisePosterior(t, HybridNoise()).for_rows(2) for t in (0.5, 0.7))
  assert [leaf.shape for leaf in jax.tree.leaves(one)] == [(2,)]
  assert jax.tree.structure(one) == jax.tree.structure(other)
  assert jax.tree.structure(one) != jax.tree.structure(NoisePosterior(0.5).for_rows(2))
  assert jax.tree.map(lambda x: x, one).noise == HybridNoise()


# A joint distribution of two tokens, and what an exact network says of a canvas.

JOINT = np.random.default_rng(5).dirichlet(np.full(V**L, 0.4)).reshape(V, V)
STATES = list(itertools.product(range(V + 1), repeat=L))


def noisy_joint(at):
  """Returns p_t(z_1, z_2)."""
  q = matrix(at)[:V]
  return np.einsum("xy,xz,yw->zw", JOINT, q, q)


def exact(states, at, own):
  """Returns p(x_i | z) of every position [.., L, V]; without `own`, p(x_i | the other z)."""
  q, out = matrix(at)[:V], []
  for z in states:
    one, two = (q[:, token] for token in z)
    first = JOINT * (one[:, None] if own else 1) * two
    second = JOINT * one[:, None] * (two if own else 1)
    pair = np.array([first.sum(1), second.sum(0)])
    out.append(pair / np.maximum(pair.sum(1, keepdims=True), 1e-300))
  return np.array(out)


def step_of(made, states, now, after):
  """Returns p(z_s^i | z_t) of a rule over an exact network [.., L, V + 1]."""
  own = isinstance(made, MixturePosterior)
  predicted = jnp.asarray(exact(states, now, own or isinstance(made, _Confused)))
  z = jnp.asarray(states)
  if own:
    predicted = without_own_entry(predicted, z, now)
  return np.asarray(reverse_probs(predicted, z, now, after))


@rule
class _Confused(NoisePosterior):
  """Wrong: the posterior is read as if it left out the entry itself."""


@pytest.mark.parametrize("name", ["uniform", "cosine", "hybrid"])
@pytest.mark.parametrize("make", [NoisePosterior, MixturePosterior, _Confused])
def test_every_position_keeps_its_marginal_in_time(name, make):
  made, worst = make(noise=NOISES[name]), 0.0
  for t, s in TIMES[1:]:
    now, after = shares(NOISES[name], t), shares(NOISES[name], s)
    probs = np.array([noisy_joint(now)[z] for z in STATES])
    moved = np.einsum("n,nlz->lz", probs, step_of(made, STATES, now, after))
    expected = noisy_joint(after)
    marginals = np.array([expected.sum(1), expected.sum(0)])
    worst = max(worst, np.abs(moved - marginals).max())
  assert worst <= 1e-12 if make is not _Confused else worst > 1e-2


def chain(made, noise, steps):
  """Returns the joint distribution of the texts of a whole run."""
  p = noisy_joint(shares(noise, 1.0))
  for n in range(steps, 0, -1):
    now, after = shares(noise, n / steps), shares(noise, (n - 1) / steps)
    step = step_of(made, STATES, now, after)
    p = sum(p[z] * np.multiply.outer(*one) for z, one in zip(STATES, step, strict=True))
  return p


@pytest.mark.parametrize("make", [NoisePosterior, MixturePosterior])
@pytest.mark.parametrize("name", ["uniform", "hybrid"])
def test_more_passes_bring_the_joint_distribution_nearer(name, make):
  noise, clean = NOISES[name], np.pad(JOINT, (0, 1))
  made = make(noise=noise)
  distances = [np.abs(chain(made, noise, steps) - clean).sum() / 2 for steps in (1, 4, 16, 64)]
  assert distances[0] > 0.09 and distances[3] < 0.02
  assert all(far > 1.3 * near for far, near in itertools.pairwise(distances))


# The compiled loop, over a network that looks its predictions up.

CONFIG = TransformerConfig(
  vocab_size=V, dim=4, heads=1, kv_heads=1, head_dim=4, mlp_dim=4, layers=uniform_layers(1),
  max_position=64, predicts="masked", extra_embeddings=1, extra_names=("mask",),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Looked:
  """A network whose predictions for a canvas are params[canvas], of tokens and masks."""

  model: Model = Model(CONFIG)
  canvas_length: int = L
  mask_id: int | None = V
  commits: bool = False

  def start(self, params, prompt, length):
    return None

  def read(self, params, cache, token, begin, count):
    return None

  def logits(self, params, cache, text, canvas, begin, signal):
    return params[canvas[:, 0] * (V + 1) + canvas[:, 1]]

  def signal(self, params, logits):
    return None

  def no_signal(self, batch):
    return None


@pytest.mark.parametrize("name", ["uniform", "hybrid"])
@pytest.mark.parametrize("make", [NoisePosterior, MixturePosterior])
def test_the_compiled_loop_samples_the_enumerated_distribution(name, make):
  rows, steps, noise = 6000, 3, NOISES[name]
  table = np.random.default_rng(8).dirichlet(np.full(V, 0.5), ((V + 1) ** L, L))
  params = jnp.log(jnp.asarray(table))

  def enumerated(made):
    p = np.zeros((V + 1, V + 1))
    start = np.append(np.full(V, shares(noise, 1.0).uniform / V), shares(noise, 1.0).mask)
    p = np.multiply.outer(start, start)
    for n in range(steps, 0, -1):
      now, after = shares(noise, n / steps), shares(noise, (n - 1) / steps)
      predicted = jnp.asarray(table)
      if isinstance(made, MixturePosterior):
        predicted = without_own_entry(predicted, jnp.asarray(STATES), now)
      step = np.asarray(reverse_probs(predicted, jnp.asarray(STATES), now, after))
      p = sum(p[z] * np.multiply.outer(*one) for z, one in zip(STATES, step, strict=True))
    return p[:V, :V]

  made = make(noise=noise)
  run = denoise_uniform(Looked(), params, [[0]] * rows, length=L, steps=steps, rule=made, key=1)
  assert run.passes.tolist() == [steps] * rows
  counts = np.zeros((V, V))
  np.add.at(counts, tuple(np.array(run.tokens).T), 1)
  other = NoisePosterior(noise=noise) if make is MixturePosterior else MixturePosterior(noise=noise)
  same, differs = (
    scipy.stats.chisquare(counts.ravel(), rows * enumerated(one).ravel()).pvalue
    for one in (made, other)
  )
  assert same > 1e-3 and differs < 1e-6
