"""The one-network table: its likelihoods, the texts that it continues, and its training."""

import jax
import numpy as np
import pytest

from configs.train import one_network as config_lib
from mtjax import frontier as frontier_lib
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.evaluate import one_network
from mtjax.evaluate.perplexity import document_nats
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.text import TextModel
from mtjax.train.config import read
from tests.compiled import forward

ROW = np.random.default_rng(0).integers(97, 100, (3, 9)).astype(np.int32)


def tiny(**changes):
  config = TransformerConfig(258, 16, 2, 1, 8, 32, uniform_layers(1), max_position=32, **changes)
  model = Model(config)
  params = jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(3)))
  return TextModel(model, params, ByteTokenizer())


MASKED = dict(predicts="masked", extra_embeddings=1, extra_names=("mask",))
SUBSET = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
MODELS = dict(
  causal={}, any_subset=SUBSET, set_diffusion=dict(SUBSET, any_subset_rows="set_diffusion"),
  masked=MASKED, block=dict(MASKED, block_length=4),
)  # fmt: skip


def test_a_causal_likelihood_is_that_of_the_perplexity():
  model = tiny()
  found = one_network.likelihood(model, ROW, begin=1, end=9)
  expected = [
    document_nats(model.model, model.params, [one[1:]], start=int(one[0]), length=8, context=0)[0]
    for one in ROW
  ]
  assert found.kind == "exact"
  np.testing.assert_allclose(found.nats, expected, rtol=1e-5)
  parts = [one_network.likelihood(model, ROW, begin=a, end=b).nats for a, b in ((1, 4), (4, 9))]
  np.testing.assert_allclose(found.nats, sum(parts), rtol=1e-5)


@pytest.mark.parametrize("name", ["any_subset", "set_diffusion"])
def test_any_subset_likelihoods_of_a_blank_sum_to_one(name):
  model = tiny(**MODELS[name])
  row = np.repeat(ROW[:1], 258, axis=0)
  row[:, 4] = np.arange(258)  # every token at one place, given both sides
  found = one_network.likelihood(model, row[:256], begin=4, end=5)
  assert found.kind == "exact" and 0.5 < np.exp(-found.nats).sum() <= 1 + 1e-5


def test_a_bound_of_one_token_is_its_density_given_both_sides():
  model = tiny(**MASKED)
  found = one_network.likelihood(model, ROW, begin=4, end=5)
  canvas = ROW.copy()
  canvas[:, 4] = model.model.config.special_id("mask")
  logits = forward(model.model, model.params, frontier_lib.bidirectional(canvas)).logits[:, 4]
  expected = -np.asarray(jax.nn.log_softmax(logits))[np.arange(3), ROW[:, 4]]
  assert found.kind == "bound"
  np.testing.assert_allclose(found.nats, expected, rtol=1e-4)


def test_a_model_of_blocks_sees_no_later_block():
  model, other = tiny(**MODELS["block"]), ROW.copy()
  other[:, 8] += 1
  one, two = (one_network.likelihood(model, row, begin=4, end=8).nats for row in (ROW, other))
  np.testing.assert_array_equal(one, two)
  sees = tiny(**MASKED)
  one, two = (one_network.likelihood(sees, row, begin=4, end=8).nats for row in (ROW, other))
  # Not in every row: what one token changes may be less than float32 can show.
  assert (one != two).any(), "and one without blocks does"


@pytest.mark.parametrize("name", MODELS)
def test_every_model_continues_rows(name):
  tokens, cost = one_network.continued(tiny(**MODELS[name]), ROW[:, :8], length=8)
  assert len(tokens) == 3 and all(1 <= len(one) <= 8 for one in tokens)
  assert 0 < cost["tokens_per_forward"] <= 8 and cost["milliseconds_per_token"] > 0


def test_rows_are_spread_over_the_text():
  rows = one_network.rows_of(range(100), length=10, count=5)
  assert rows[:, 0].tolist() == [0, 20, 40, 60, 80] and rows.shape == (5, 10)
  with pytest.raises(ValueError, match="10 rows of 10 tokens, but 11"):
    one_network.rows_of(range(100), length=10, count=11)
  with pytest.raises(ValueError, match="begin and end must rise"):
    one_network.likelihood(tiny(), ROW, begin=0, end=4)


def test_all_five_are_trained_with_equal_compute():
  assert config_lib.ENTRIES == one_network.ENTRIES
  for objective, entries in config_lib.ENTRIES.items():
    config = config_lib.get_config(objective)
    assert read(config.to_dict()).objective == objective
    assert config.steps * entries == pytest.approx(config_lib.STEPS, rel=0.01)
  with pytest.raises(ValueError, match="the objective must be one of next_token"):
    config_lib.get_config("s2d")
