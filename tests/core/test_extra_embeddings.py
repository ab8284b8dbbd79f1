"""A model's configuration says what it predicts and how its extra embeddings are named."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.decode.generation import generate, stream
from mtjax.frontier import causal as causal_text
from mtjax.models import Model, TransformerConfig, XLNetConfig, check_causal, uniform_layers

CONFIG = TransformerConfig(9, 16, 2, 1, 8, 16, uniform_layers(1))
XLNET = XLNetConfig(vocab_size=9, dim=16, heads=2, head_dim=8, mlp_dim=16, depth=1)


def test_names_mean_the_ids_after_the_vocabulary():
  named = dataclasses.replace(CONFIG, extra_embeddings=3, extra_names=("mask", "prompt"))
  assert (named.special_id("mask"), named.special_id("prompt")) == (9, 10)
  assert XLNET.special_id("query") == 9
  for config, message in (
    (named, "no extra embedding called 'sink'; it has 'mask', 'prompt'"),
    (XLNET, "called 'sink'; it has 'query'"),
    (CONFIG, "called 'sink'; it has none"),
  ):
    with pytest.raises(ValueError, match=message):
      config.special_id("sink")
  with pytest.raises(ValueError, match="called 'mask'; it has 'query'"):
    XLNET.special_id("mask")


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(extra_embeddings=1, extra_names=("a", "b")), "extra_names has 2 names, .* is only 1"),
    (dict(extra_embeddings=2, extra_names=("a", "a")), "must differ from each other"),
    (dict(extra_embeddings=2, extra_names=("a", "")), "must be a tuple of words"),
    pytest.param(
      dict(extra_embeddings=2, extra_names=["a"]),
      "must be a tuple of words",
      marks=pytest.mark.ill_typed,
    ),
    (dict(extra_embeddings=-1), "extra_embeddings must be a whole number and at least 0, got -1"),
    pytest.param(
      dict(predicts="causal"),
      "predicts must be one of 'next_token', 'any_subset', 'masked', got",
      marks=pytest.mark.ill_typed,
    ),
    (dict(target_conditioning="added"), "'added'.* with predicts 'any_subset', got 'next_token'"),
  ],
)
def test_names_and_kinds_that_cannot_be(fields, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG, **fields)


def test_what_a_model_predicts_makes_it_causal_not_its_embeddings():
  check_causal(Model(CONFIG), "it")
  check_causal(Model(dataclasses.replace(CONFIG, extra_embeddings=4)), "it")
  for predicts, kind in (("any_subset", "an any-subset"), ("masked", "a masked")):
    with pytest.raises(ValueError, match=f"it is {kind} model, but a causal one is needed"):
      check_causal(Model(dataclasses.replace(CONFIG, predicts=predicts)), "it")


def test_a_causal_model_with_extra_embeddings_is_decoded_as_without(tiny, causal):
  """The `tiny` of these tests has two, and `causal` is `tiny` without: the same weights."""
  model, params, forward = tiny
  expected = generate(causal[0], causal[1], [[1, 2, 3], [4]], max_tokens=6).tokens
  assert generate(model, params, [[1, 2, 3], [4]], max_tokens=6).tokens == expected
  for run in (generate, stream):
    with pytest.raises(ValueError, match="prompt 0 has token ids outside 0..47"):
      run(model, params, [[1, 48]])
  # In a frontier their ids are rows of a table of their own: here both are the row of token 5.
  params = dict(params, extra=dict(table=jnp.stack([params["embedding"]["table"][5]] * 2)))
  tokens = jnp.array([[1, 5, 2, 5]])
  logits = forward(params, causal_text(jnp.array([[1, 48, 2, 49]]))).logits
  assert logits.shape == (1, 4, 48)
  np.testing.assert_allclose(logits, forward(params, causal_text(tokens)).logits, atol=1e-6)
