"""Texts under a masked model: rows count every token once, and all texts share a program."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.likelihood import network as network_lib
from mtjax.diffusion.likelihood.estimators import by_name
from mtjax.diffusion.likelihood.network import network_conditionals
from mtjax.evaluate.diffusion_likelihood import diffusion_likelihood, rows_of
from mtjax.models import Model, TransformerConfig, uniform_layers
from tests import tiny_model
from tests.forked import launch

LENGTH = 6


def network_of(alignment="aligned", block_length=0):
  config = TransformerConfig(
    vocab_size=7, dim=8, heads=2, kv_heads=1, head_dim=4, mlp_dim=8, layers=uniform_layers(1),
    predicts="masked", extra_embeddings=1, extra_names=("mask",), max_position=16,
    alignment=alignment, block_length=block_length,
  )  # fmt: skip
  model = Model(config)
  params = jax.tree.map(lambda x: x * 8 if x.ndim == 2 else x, model.init(jax.random.key(0)))
  return MaskedNetwork.of(model), params


def test_rows_count_every_token_once():
  document = list(range(1, 16))
  rows = list(rows_of(document, length=LENGTH, context=2, start=0))
  assert [(row.tolist(), given) for row, given in rows] == [
    ([0, 1, 2, 3, 4, 5], 1),
    ([4, 5, 6, 7, 8, 9], 2),
    ([8, 9, 10, 11, 12, 13], 2),
    ([12, 13, 14, 15], 2),
  ]
  assert [t for row, given in rows for t in row[given:]] == document


@pytest.mark.parametrize("alignment", ["aligned", "shifted"])
@pytest.mark.parametrize("block_length", [0, 4])
def test_padding_and_context_change_no_conditional(alignment, block_length):
  network, params = network_of(alignment, block_length)
  token = np.array([1, 4, 0, 2, 6, 3, 1])
  masks = np.array([[1, 0, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]], bool)
  found = network_conditionals(network, params, token, context=2, batch=2, length=11)(masks)
  alone = network_conditionals(network, params, token)
  whole = np.pad(masks, ((0, 0), (2 - network.shifted, 0)))
  np.testing.assert_allclose(found, alone(whole)[:, -5:], atol=1e-5)
  assert (found[~masks] == 0).all() and (found[masks] < 0).all()


@pytest.mark.parametrize("block_length", [0, 4])
def test_bounds_of_texts_agree_and_share_a_program(block_length):
  network, params = network_of(block_length=block_length)
  documents = [(np.array([1, 4, 0, 2, 6, 3, 1, 5, 5]), 20), (np.array([3, 3]), 4)]
  names = ("monte_carlo", "order_average", "pseudo")
  network_lib._log_probs.clear_cache()
  scores = diffusion_likelihood(
    network, params, documents, by_name(names, samples=256), start=0, length=LENGTH, context=2,
    batch=32,
  )  # fmt: skip
  assert network_lib._log_probs._cache_size() == 1
  bound, orders, pseudo = scores
  assert [s.kind for s in scores] == ["bound", "bound", "neither"]
  assert bound.tokens == 11 and bound.bytes == 24
  assert bound.bits_per_byte == pytest.approx(bound.nats / np.log(2) / 24)
  assert abs(bound.nats - orders.nats) < 3 * np.hypot(bound.error, max(orders.error, 0.3))
  assert 0 < bound.error < 1 and pseudo.error == 0


def test_a_model_that_predicts_nothing_needs_the_bits_of_its_vocabulary():
  network, params = network_of()
  zero = jax.tree.map(jnp.zeros_like, params)
  (score,) = diffusion_likelihood(
    network, zero, [(np.arange(7), 7)], by_name(["discrete_time"], samples=4096), start=0,
    length=8, context=0,
  )  # fmt: skip
  assert score.bits_per_byte == pytest.approx(np.log2(7), abs=4 * score.error / np.log(2) / 7)


def test_the_launcher_prints_and_writes_every_estimator(tmp_path):
  model = tiny_model.save(tmp_path / "model", **tiny_model.MASKED)
  (tmp_path / "text.txt").write_text("The old clock struck nine, and the children ran down.")
  output = tmp_path / "scores.json"
  code, shown, errors = launch(
    "experiments.evaluate", f"--model={model}", f"--text=clock=file:{tmp_path / 'text.txt'}",
    "--length=16", "--context=4", "--likelihood=monte_carlo,pseudo", "--samples=4", "--batch=4",
    f"--output={output}",
  )  # fmt: skip
  assert code == 0, errors
  assert "monte_carlo" in shown and "neither" in shown
  (bound, pseudo) = json.loads(output.read_text())["texts"]["clock"]
  # Random weights: 12 bits for each of the tokens.
  assert bound["tokens"] == pseudo["tokens"] and bound["bytes"] == 53
  for score in (bound, pseudo):
    assert score["bits_per_byte"] == pytest.approx(12 * score["tokens"] / 53, rel=0.05)


def test_refusals():
  network, params = network_of()
  estimators = by_name(["monte_carlo"])
  with pytest.raises(ValueError, match="estimators must be among monte_carlo, .* got .'exact'"):
    by_name(["exact"])
  with pytest.raises(ValueError, match="there is no text to score"):
    diffusion_likelihood(network, params, [], estimators, start=0)
  with pytest.raises(ValueError, match="context must be from 0 to below length - 1 = 5, got 5"):
    diffusion_likelihood(
      network, params, [(np.array([1]), 1)], estimators, start=0, length=6, context=5
    )
