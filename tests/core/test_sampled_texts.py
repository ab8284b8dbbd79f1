"""Sampled text follows the model's distribution: all sequences, chi-square on `generate`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtjax import frontier
from mtjax.decode.generation import generate
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.sampling.logits import Sampling, process

VOCAB, LENGTH, ROWS = 5, 3, 8192
PROMPT = [2, 0]
SETTINGS = dict(temperature=0.8, top_p=0.95)


@pytest.fixture(scope="module")
def model():
  config = TransformerConfig(
    vocab_size=VOCAB, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=16, layers=uniform_layers(1)
  )
  model = Model(config)
  params = model.init(jax.random.key(1))
  return model, jax.tree.map(lambda x: x * 8 if x.ndim == 2 else x, params)


@pytest.fixture(scope="module")
def counts(model):
  """Returns the counts of the V**L sequences that `generate` returned."""
  out = generate(
    *model, [PROMPT] * ROWS, max_tokens=LENGTH, sampling=Sampling(**SETTINGS), key=jax.random.key(5)
  )
  sequences = np.array(out.tokens)
  return np.bincount(sequences @ VOCAB ** np.arange(LENGTH)[::-1], minlength=VOCAB**LENGTH)


def probs(model, **settings):
  """Returns the product of next-token probs along each sequence, each from a plain forward pass."""
  network, params = model
  sequences = np.array(list(itertools.product(range(VOCAB), repeat=LENGTH)))
  rows = np.concatenate([np.tile(PROMPT, (len(sequences), 1)), sequences], axis=1)
  logits = jax.jit(network.forward)(params, frontier.causal(jnp.asarray(rows))).logits
  rules = Sampling(**settings).rules(len(rows), VOCAB)
  probs = np.asarray(jax.nn.softmax(process(logits, rules), axis=-1), np.float64)
  steps = np.take_along_axis(probs[:, len(PROMPT) - 1 : -1], sequences[..., None], axis=2)
  return steps[..., 0].prod(axis=1)


def p_value(counts, probabilities):
  """Returns the p-value of Pearson's chi-square; cells expected below 5 are pooled."""
  expected = probabilities / probabilities.sum() * counts.sum()
  rare = expected < 5
  if rare.any():
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
  if np.any(counts[expected == 0]):
    return 0.0
  return stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue


def test_generations_follow_the_distribution(model, counts):
  probabilities = probs(model, **SETTINGS)
  assert abs(probabilities.sum() - 1) < 1e-5
  assert p_value(counts, probabilities) > 1e-3


@pytest.mark.parametrize(
  "wrong", [dict(temperature=0.85, top_p=0.95), dict(temperature=0.8), dict(temperature=1.0)]
)
def test_another_distribution_would_be_noticed(model, counts, wrong):
  assert p_value(counts, probs(model, **wrong)) < 1e-6
