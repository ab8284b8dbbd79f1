"""The bound of masked diffusion is the same by orders, schedules and numbers of masked tokens."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.likelihood.conditionals import all_masks
from mtjax.diffusion.likelihood.network import block_of, network_conditionals
from mtjax.diffusion.likelihood.sampled import sampled_bound
from mtjax.diffusion.likelihood.subsets import bits_per_byte, discrete_bound, exact_bound
from mtjax.diffusion.noising.schedules import Cosine, NoiseSchedule, Polynomial
from mtjax.frontier import bidirectional
from mtjax.models import Model, TransformerConfig, uniform_layers
from tests.compiled import forward

SIZE, TEXT = 4, (2, 0, 1, 1)


def table():
  """Returns log p(x_i | clean) of random conditionals, made as the golden values were."""
  rng, seen = np.random.default_rng(0), {}

  def log_p(x, i):
    if (x, i) not in seen:
      logits = rng.normal(size=3) * 1.5
      e = np.exp(logits - logits.max())
      seen[x, i] = e / e.sum()
    return math.log(seen[x, i][TEXT[i]])

  return log_p


def by_orders(log_p):
  """Returns the log density of every order."""
  out = []
  for order in itertools.permutations(range(SIZE)):
    x, nats = [3] * SIZE, 0.0
    for i in order:
      nats += log_p(tuple(x), i)
      x[i] = TEXT[i]
    out.append(nats)
  return np.array(out)


def conditionals_of(log_p):
  def each(masks):
    out = np.zeros(masks.shape)
    for row, mask in enumerate(masks):
      x = tuple(3 if m else v for m, v in zip(mask, TEXT, strict=True))
      for i in np.flatnonzero(mask):
        out[row, i] = log_p(x, i)
    return out

  return each


@pytest.fixture(scope="module")
def known():
  """Returns (log density of every order, conditionals)."""
  log_p = table()
  return by_orders(log_p), conditionals_of(log_p)


def integral(conditionals, schedule, points=4001):
  t = (np.arange(points) + 0.5) / points
  with jax.enable_x64(True):
    masked, weight = np.asarray(schedule.masked(t)), np.asarray(schedule.weight(t))
  masks = all_masks(SIZE)
  k = masks.sum(axis=1)[:, None]
  return np.dot(
    (weight * masked**k * (1 - masked) ** (SIZE - k)).mean(axis=1), conditionals(masks).sum(axis=1)
  )


def test_the_bound_is_the_mean_over_orders(known):
  """-4.765915102: 24 orders of this table, by an independent script with numpy's seed 0."""
  orders, conditionals = known
  assert orders.mean() == pytest.approx(-4.765915102, abs=1e-9)
  assert exact_bound(conditionals, SIZE) == pytest.approx(orders.mean(), abs=1e-9)
  assert math.log(np.exp(orders).mean()) > orders.mean()  # the exact density of a random order


@pytest.mark.parametrize("schedule", [NoiseSchedule(), Cosine(), Polynomial(2.0)], ids=repr)
def test_every_schedule_has_the_same_bound(known, schedule):
  assert integral(known[1], schedule) == pytest.approx(-4.765915102, abs=1e-6)


def test_bounds_of_few_steps_tend_to_the_continuous_one(known):
  """-3.02, -4.03, -4.689, -4.761: the same independent script."""
  found = [discrete_bound(known[1], SIZE, steps) for steps in (1, 2, 16, 256)]
  np.testing.assert_allclose(found, [-3.02, -4.03, -4.689, -4.761], atol=6e-3)


@pytest.mark.parametrize("schedule", [None, NoiseSchedule(), Cosine()], ids=repr)
def test_samples_estimate_the_bound(known, schedule):
  mean, error = sampled_bound(known[1], SIZE, samples=4000, schedule=schedule)
  assert 0 < error < 0.2
  assert abs(mean + 4.765915102) < 3 * error


def test_samples_without_weights_are_noticed(known):
  """Negative control: the cross-entropy of masked tokens alone is no bound."""

  class Unweighted(NoiseSchedule):
    def weight(self, t):
      return np.ones_like(t)

  mean, error = sampled_bound(known[1], SIZE, samples=4000, schedule=Unweighted())
  assert abs(mean + 4.765915102) > 10 * error


def network_of(alignment, block_length=0):
  config = TransformerConfig(
    vocab_size=5,
    dim=8,
    heads=2,
    kv_heads=1,
    head_dim=4,
    mlp_dim=8,
    layers=uniform_layers(1),
    predicts="masked",
    extra_embeddings=1,
    extra_names=("mask",),
    alignment=alignment,
    block_length=block_length,
  )
  model = Model(config)
  params = jax.tree.map(lambda x: x * 8 if x.ndim == 2 else x, model.init(jax.random.key(0)))
  return MaskedNetwork.of(model), params


@pytest.mark.parametrize("shift", [0, 1])
def test_a_network_has_the_mean_over_orders_too(shift):
  network, params = network_of(("aligned", "shifted")[shift])
  text = np.array([1, 4, 0, 2, 2][: SIZE + shift])
  each = network_conditionals(network, params, text)

  def log_p(clean, i):
    """log p of token i given the clean ones, in a pass of its own."""
    held = np.where(np.append([True] * shift, clean), text, 5)[None]
    logits = forward(network.model, params, bidirectional(jnp.asarray(held))).logits[0, i]
    return float(jax.nn.log_softmax(logits)[text[i + shift]])

  one = {
    (clean, i): log_p(clean, i)
    for clean in itertools.product([False, True], repeat=SIZE)
    for i in range(SIZE)
    if not clean[i]
  }
  orders = [
    sum(one[tuple(bool(x) for x in np.isin(range(SIZE), o[:k])), o[k]] for k in range(SIZE))
    for o in itertools.permutations(range(SIZE))
  ]
  assert np.std(orders) > 0.01
  assert exact_bound(each, SIZE) == pytest.approx(np.mean(orders), abs=1e-5)
  mean, error = sampled_bound(each, SIZE, samples=64)
  assert abs(mean - exact_bound(each, SIZE)) < 3 * error + 1e-6


@pytest.mark.parametrize("shift", [0, 1])
def test_blocks_of_a_network_are_bounded_one_after_the_other(shift):
  """Blocks of 3 of a text of 7: each is bounded on a canvas that ends with it."""
  network, params = network_of(("aligned", "shifted")[shift], block_length=3)
  text = np.array([1, 4, 0, 2, 2, 3, 1])
  each, block = network_conditionals(network, params, text), block_of(network, 7)
  assert block.tolist() == [0, 0, 0, 1, 1, 1, 2][shift:]
  expected = 0.0
  for begin in range(0, 7, 3):
    places = np.arange(max(begin, shift), min(begin + 3, 7))

    def alone(masks, places=places):
      held = np.repeat(text[None, : places[-1] + 1], len(masks), axis=0)
      held[:, places] = np.where(masks, 5, held[:, places])
      end = jnp.full(len(masks), held.shape[1])
      logits = forward(network.model, params, network.canvas(jnp.asarray(held), end)).logits
      log_probs = np.asarray(jax.nn.log_softmax(logits))
      return np.where(masks, log_probs[:, places - shift, text[places]], 0)

    expected += exact_bound(alone, len(places))
  mean, error = sampled_bound(each, 7 - shift, samples=400, block=block)
  assert 0 < error < 0.2 and abs(mean - expected) < 3 * error
  # Negative control: the blocks of another model.
  other, params = network_of(("aligned", "shifted")[shift], block_length=7)
  whole, _ = sampled_bound(network_conditionals(other, params, text), 7 - shift, samples=400)
  assert abs(whole - expected) > 3 * error


def test_bits_and_wrong_input():
  assert bits_per_byte(-2 * math.log(2), "é") == pytest.approx(1)
  with pytest.raises(ValueError, match="an empty text"):
    bits_per_byte(-1.0, "")
  with pytest.raises(ValueError, match="13 tokens has no masking or too many"):
    exact_bound(lambda masks: masks, 13)
  with pytest.raises(ValueError, match="steps must be at least 1"):
    discrete_bound(lambda masks: masks, 3, 0)
  with pytest.raises(ValueError, match="samples must be at least 1, got size 3, samples 0"):
    sampled_bound(lambda masks: masks, 3, samples=0)
  with pytest.raises(ValueError, match="block must have the number of each of 3 tokens' blocks"):
    sampled_bound(lambda masks: masks, 3, samples=1, block=np.array([0, 2, 3]))
  network, params = network_of("aligned")
  for text in ([1, 5], [1, -1]):
    with pytest.raises(ValueError, match="tokens must be within 0..4, and no masks"):
      network_conditionals(network, params, np.array(text))
  with pytest.raises(ValueError, match="one text of more than 1 tokens"):
    network_conditionals(*network_of("shifted"), np.array([1]))
