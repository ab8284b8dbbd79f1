"""The two-stage argmax, top-k and samples against the plain ones and the distribution."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtjax.sampling import categorical as choice
from tests.compiled import RUNS_LONG

SAMPLES, AT_ONCE = 120_000, 1000
LIKELY = (0, 1, 17, 300, 301, 998)  # some share a block; the last block of 1000 is not full
SHARE = (0.35, 0.2, 0.15, 0.12, 0.1, 0.08)


def logits_of(vocab, kind):
  rng = np.random.default_rng(vocab)
  values = {
    "distinct": rng.normal(size=(3, 2, vocab)),
    "ties": rng.integers(0, 3, size=(3, 2, vocab)),
    "few": np.where(rng.random((3, 2, vocab)) < 3 / vocab, 0.5, -np.inf),
    "none": np.full((3, 2, vocab), -np.inf),
  }[kind]
  return jnp.asarray(values, jnp.float32)


@pytest.mark.parametrize("kind", ["distinct", "ties", "few", "none"])
@pytest.mark.parametrize("vocab", [4, 1000, 4096])
def test_the_best_are_those_of_argmax_and_top_k(vocab, kind):
  logits = logits_of(vocab, kind)
  np.testing.assert_array_equal(choice.argmax(logits), jnp.argmax(logits, axis=-1))
  for k in (1, 3):
    result, expected = choice.top_k(logits, k), jax.lax.top_k(logits, k)
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_array_equal(result[1], expected[1])


@pytest.mark.parametrize("k", [0, 5])
def test_more_than_the_vocabulary_is_refused(k):
  for function in (choice.top_k, lambda x, k: choice.sample_categorical_each(x, KEY, k)):
    with pytest.raises(ValueError, match=f"from 1 to the vocabulary's 4 tokens, got {k}"):
      function(jnp.zeros(4), k)


KEY = jax.random.key(0)


def sampled(function):
  """Returns what `function` of a key returns, for many keys."""
  keys = jax.random.split(KEY, (SAMPLES // AT_ONCE, AT_ONCE))

  def sample(keys):
    return jax.lax.map(jax.vmap(function), keys)

  return np.asarray(jax.jit(sample, compiler_options=RUNS_LONG)(keys)).reshape(SAMPLES, -1)


def p_value_of(tokens, probs):
  """Returns the p-value of a chi-square test of tokens against probs; rare tokens are one cell."""
  expected = probs * len(tokens)
  often = expected >= 20
  counts = np.bincount(tokens, minlength=len(probs))
  observed = np.append(counts[often], counts[~often].sum())
  return stats.chisquare(observed, np.append(expected[often], expected[~often].sum())).pvalue


def skewed_probs():
  """Returns probs of 1000 tokens for which the order of block masses is not that of block maxima.

  A few tokens are likely, and most of the mass is in the many others.
  """
  weight = np.random.default_rng(3).gamma(0.3, size=1000)
  weight[500:516] = 0.01
  weight[504] = 40.0  # a block of one likely token
  return weight / weight.sum()


def test_a_token_is_sampled_from_the_distribution(monkeypatch):
  probs = skewed_probs()
  one = functools.partial(choice.sample_categorical, jnp.log(jnp.asarray(probs, jnp.float32)))
  assert p_value_of(sampled(one)[:, 0], probs) > 1e-3
  # A block is as likely as all its tokens together, not as its best.
  monkeypatch.setattr(jax.nn, "logsumexp", jnp.max)
  assert p_value_of(sampled(lambda key: one(key))[:, 0], probs) < 1e-9


def pairs_p_value(tokens):
  """Returns the p-value of ordered pairs against sampling without replacement from SHARE."""
  probs = {
    (a, b): pa * pb / (1 - pa)
    for (a, pa), (b, pb) in itertools.permutations(zip(LIKELY, SHARE, strict=True), 2)
  }
  counts = {pair: 0 for pair in probs}
  for pair in map(tuple, tokens.tolist()):
    counts[pair] += 1  # a KeyError for a token of no mass and for a pair of equal tokens
  return stats.chisquare(list(counts.values()), np.array(list(probs.values())) * len(tokens)).pvalue


def test_tokens_are_sampled_without_replacement(monkeypatch):
  logits = jnp.full((1000,), -jnp.inf).at[jnp.array(LIKELY)].set(jnp.log(jnp.array(SHARE)))
  two = functools.partial(choice.sample_categorical_each, logits, k=2)
  assert pairs_p_value(sampled(two)) > 1e-3
  # Inside a block noise is sampled given its maximum: fresh noise forgets which blocks were best.
  monkeypatch.setattr(choice, "_given_largest", lambda noisy, largest: noisy)
  assert pairs_p_value(sampled(lambda key: two(key))) < 1e-9


def test_after_the_last_token_of_positive_probability_come_tokens_of_the_vocabulary():
  logits = jnp.full((1000,), -jnp.inf).at[999].set(0.0)
  tokens = sampled(functools.partial(choice.sample_categorical_each, logits, k=3))
  assert (tokens[:, 0] == 999).all()
  assert tokens.min() >= 0 and tokens.max() < 1000
