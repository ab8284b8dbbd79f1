"""Bits per byte: every token counts once, with at least the context that was promised."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtjax import frontier as F
from mtjax.evaluate.perplexity import score, windows
from mtjax.models import Model, TransformerConfig, XLNetConfig, check_causal, uniform_layers


@given(st.integers(0, 60), st.integers(2, 12), st.data())
def test_windows_count_every_token_once_with_its_context(size, length, data):
  context = data.draw(st.integers(0, length - 1))
  text = list(range(100, 100 + size))
  seen = []
  for row, target, counted in windows(text, length=length, context=context, start=7):
    for at in np.flatnonzero(counted):
      token = target[at]
      seen.append(token)
      before = ([7] + text)[: text.index(token) + 1]
      np.testing.assert_array_equal(row[: at + 1], before[len(before) - at - 1 :])
      assert at >= min(context, len(before) - 1), "a token was predicted from too few tokens"
  assert seen == text


@pytest.fixture(scope="module")
def small():
  config = TransformerConfig(
    vocab_size=11, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=16, layers=uniform_layers(1)
  )
  model = Model(config)
  return model, model.init(jax.random.key(0))


def test_score_equals_the_direct_computation(small):
  model, params = small
  documents = [([1, 2, 3, 4, 5], 9), ([6, 7], 4)]
  expected, forward = 0.0, jax.jit(model.forward)
  for tokens, _ in documents:
    logits = forward(params, F.causal(jnp.asarray([[0, *tokens]]))).logits[0]
    log_probs = jax.nn.log_softmax(logits)
    expected -= sum(float(log_probs[i, token]) for i, token in enumerate(tokens))
  result = score(model, params, documents, start=0, length=8, context=4, batch=3)
  assert result.nats == pytest.approx(expected, abs=1e-4)
  assert (result.tokens, result.bytes) == (7, 13)
  assert result.bits_per_byte == pytest.approx(expected / math.log(2) / 13, abs=1e-5)
  assert result.perplexity == pytest.approx(math.exp(expected / 7), rel=1e-5)


def test_refusals(small):
  model, params = small
  with pytest.raises(ValueError, match="no text"):
    score(model, params, [([], 0)], start=0)
  with pytest.raises(ValueError, match="context must be"):
    score(model, params, [([1], 1)], start=0, length=8, context=8)
  with pytest.raises(ValueError, match="exceeds the model"):
    score(model, params, [([1], 1)], start=0, length=4096)


def test_any_subset_models_are_not_causal(small):
  config = small[0].config
  check_causal(small[0], "it")
  for other in (
    dataclasses.replace(config, predicts="any_subset"),
    dataclasses.replace(config, predicts="any_subset", target_conditioning="added"),
    XLNetConfig(vocab_size=5, dim=16, heads=2, head_dim=8, mlp_dim=32, depth=2),
  ):
    with pytest.raises(ValueError, match="it is an any-subset model, but a causal one is needed"):
      check_causal(Model(other), "it")
