"""Processed logits, against hand-written probabilities and the obvious program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mtjax.sampling.logits import History, Sampling, process, sample

V = 12


def _probs(logits, **settings):
  history = settings.pop("history", None)
  rules = Sampling(**settings).rules(1, V)
  return np.asarray(jax.nn.softmax(process(logits[None, None], rules, history)[0, 0]))


def _logits(seed=0):
  return jax.random.normal(jax.random.key(seed), (V,)) * 2


def _textbook(logits, temperature=1.0, top_k=V, top_p=1.0, min_p=0.0):
  """Filters one after the other on plain probabilities."""
  p = np.exp(np.asarray(logits, np.float64) / temperature)
  p /= p.sum()
  order = np.argsort(-p)
  p[order[top_k:]] = 0
  p /= p.sum()
  before = np.cumsum(p[order]) - p[order]
  p[order[before >= top_p]] = 0
  p[p < min_p * p.max()] = 0
  return p / p.sum()


@given(
  st.integers(0, 10**6),
  st.floats(0.3, 3),
  st.integers(1, V),
  st.floats(0.05, 0.99),
  st.floats(0.01, 0.9),
)
def test_filters_in_order(seed, temperature, top_k, top_p, min_p):
  settings = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
  logits = _logits(seed)
  np.testing.assert_allclose(_probs(logits, **settings), _textbook(logits, **settings), atol=1e-5)


def test_greedy_keeps_the_first_of_equals():
  logits = jnp.zeros(V).at[jnp.array([3, 7])].set(2.0)
  np.testing.assert_array_equal(_probs(logits), np.eye(V)[3])
  mixed = Sampling(temperature=(0.0, 1.0)).rules(2, V)
  probs = jax.nn.softmax(process(jnp.stack([logits, logits])[:, None], mixed))[:, 0]
  np.testing.assert_array_equal(probs[0], np.eye(V)[3])
  np.testing.assert_allclose(probs[1], _textbook(logits), atol=1e-6)


def test_the_likeliest_token_always_stays():
  assert _probs(_logits(), temperature=1.0, top_p=1e-6).max() == 1.0
  assert _probs(_logits(), temperature=1.0, top_k=1).max() == 1.0
  assert _probs(_logits(), temperature=1.0, min_p=1.0).max() == 1.0


def test_penalties_come_before_temperature():
  logits = jnp.linspace(-2, 2, V)
  prompt = jnp.array([[0, 11, 5]])
  history = History.of_prompt(prompt, jnp.array([2]), V)  # 5 is padding
  history = history.add(jnp.array([[10]]), jnp.array([[True]]))
  history = history.add(jnp.array([[9]]), jnp.array([[False]]))  # a finished row adds nothing
  expected = np.asarray(logits, np.float64).copy()
  for token in (0, 10, 11):
    expected[token] = expected[token] / 1.5 if expected[token] > 0 else expected[token] * 1.5
  expected[10] -= 0.7
  got = _probs(
    logits, temperature=0.5, repetition_penalty=1.5, presence_penalty=0.7, history=history
  )
  np.testing.assert_allclose(got, _textbook(expected, 0.5), atol=1e-6)


def test_bias_can_force_and_ban():
  probs = _probs(_logits(), temperature=1.0, logit_bias={2: 100.0})
  assert probs[2] > 0.999
  assert _probs(_logits(), temperature=1.0, logit_bias={2: -np.inf})[2] == 0


def test_settings_of_no_effect_are_not_compiled_in():
  off = Sampling(0.0, 0, 1.0, 0.0, 1.0, 0.0, {}).rules(3, V)
  assert jax.tree.leaves(off) == []


def test_samples_follow_the_distribution():
  logits = _logits(3)
  draws = 40_000
  keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(1), row))(jnp.arange(draws))
  token = sample(jnp.broadcast_to(logits, (draws, V)), keys, jnp.zeros(draws, jnp.int32))
  counts = np.bincount(token, minlength=V)
  expected = _textbook(logits) * draws
  assert stats.chisquare(counts, expected).pvalue > 1e-4
  wrong = _textbook(logits, temperature=1.1) * draws
  assert stats.chisquare(counts, wrong).pvalue < 1e-4, "the test could not see a wrong temperature"


def test_draws_of_two_steps_are_independent():
  """Noise reused between steps keeps both marginals and shows only jointly."""
  draws = 20_000
  logits = jnp.broadcast_to(jnp.zeros(3), (draws, 3))
  keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(2), row))(jnp.arange(draws))
  one = np.asarray(sample(logits, keys, jnp.zeros(draws, jnp.int32)))
  two = np.asarray(sample(logits, keys, jnp.ones(draws, jnp.int32)))
  joint = np.bincount(3 * one + two, minlength=9)
  assert stats.chisquare(joint).pvalue > 1e-4


def test_rare_tokens_are_reachable(monkeypatch):
  """Low-precision Gumbel noise stops at 15.94: a token 17 nats down could never be sampled."""
  modes = []

  def noise(key, shape, *args, mode=None, **kwargs):
    modes.append(mode)
    # The largest noise of each mode, on the rare token.
    return jnp.array([0.0, 17.5 if mode == "high" else 15.94])

  monkeypatch.setattr(jax.random, "gumbel", noise)
  logits = process(jnp.array([[[0.0, -17.0]]]), Sampling(temperature=1.0).rules(1, 2))[:, 0]
  assert sample(logits, jax.random.split(jax.random.key(0), 1), jnp.array([0])).tolist() == [1]
  assert modes == ["high"]


def test_top_p_of_another_row_cuts_nothing_where_it_is_off():
  logits = 3 * jax.random.normal(jax.random.key(1), (2, 1, 4096))
  processed = process(logits, Sampling(temperature=1.0, top_p=(1.0, 0.9)).rules(2, 4096))
  np.testing.assert_array_equal(processed[0], logits[0])
  assert np.isneginf(processed[1]).any()


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(temperature=-1.0), "temperature must be at least 0"),
    (dict(temperature=float("nan")), "temperature"),
    (dict(top_p=0.0), "top_p must be above 0"),
    (dict(top_p=1.5), "top_p"),
    (dict(min_p=2.0), "min_p"),
    (dict(top_k=-1), "top_k"),
    (dict(repetition_penalty=0.0), "repetition_penalty must be above 0"),
    (dict(temperature=(1.0, 2.0)), "temperature has 2 values for a batch of 1"),
    (dict(logit_bias={V: 1.0}), "which a vocabulary of 12 lacks"),
  ],
)
def test_refusals(settings, message):
  with pytest.raises(ValueError, match=message):
    Sampling(**settings).rules(1, V)


def test_penalties_need_a_history():
  with pytest.raises(ValueError, match="history"):
    _probs(_logits(), repetition_penalty=1.2)
