"""The any-subset loss is -log p of the asked tokens, document by document."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.anysubset import log_likelihood, make_canvas
from mtjax.anysubset.masking import Masking
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.train import any_subset_loss as loss_lib
from mtjax.train.any_subset_loss import any_subset_loss

MODEL = Model(
  TransformerConfig(
    vocab_size=7,
    dim=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    mlp_dim=24,
    layers=uniform_layers(1),
    extra_embeddings=2,
    max_position=64,
  )
)
LENGTHS = (7, 4, 9)  # documents of the first row; the second is one of 20
MASKING = Masking(start=(0.3, 0.3), end=(0.3, 0.6))


@pytest.fixture(scope="module")
def params():
  params = MODEL.init(jax.random.key(0))
  return jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, params)


def batch():
  rng = np.random.default_rng(0)
  segment = np.zeros((2, 22), np.int32)
  segment[0, : sum(LENGTHS)] = np.repeat([1, 2, 3], LENGTHS)
  segment[1, :20] = 1
  position = np.zeros_like(segment)
  for row in range(2):
    for number in set(segment[row]) - {0}:
      here = segment[row] == number
      position[row, here] = np.arange(here.sum())
  return dict(tokens=rng.integers(0, 7, (2, 22)), segment=segment, position=position)


def run(params, masking=MASKING, **changes):
  """(loss, drawn asked entries)."""
  seen = {}
  key = jax.random.key(3)

  class Recorded(Masking):
    def draw(self, key, open_, step):
      seen["asked"] = super().draw(key, open_, step)
      return seen["asked"]

  masking = Recorded(**{f.name: getattr(masking, f.name) for f in dataclasses.fields(masking)})
  total = any_subset_loss(MODEL, masking)(params, {**batch(), **changes}, key, jnp.asarray(0))
  return total, np.asarray(seen["asked"])


def by_density(params, asked):
  """Every document alone, without its first token, in whose place the model's sink stands."""
  data, nats = batch(), 0.0
  for row in range(2):
    for number in sorted(set(data["segment"][row]) - {0}):
      here = np.flatnonzero(data["segment"][row] == number)[1:]
      if not asked[row, here].any():
        continue
      canvas = make_canvas(MODEL.config, data["tokens"][row, here][None], asked[row, here][None])
      nats -= log_likelihood(MODEL, params, canvas).sum()
  return nats


def test_the_loss_is_the_negative_density_of_what_is_asked(params):
  total, asked = run(params)
  assert not asked[batch()["position"] == 0].any() and asked.sum() > 8
  assert float(total.weight) == asked.sum()
  assert float(total.sum) == pytest.approx(by_density(params, asked), rel=1e-5)
  assert float(total.parts["rate"] / total.weight) == pytest.approx(asked.sum() / 40)


def test_fewer_queries_weigh_as_much_as_all_that_is_asked(params):
  """With fewer queries than asked tokens: another estimate a key, the same asked tokens."""
  whole, asked = run(params)
  some, again = run(params, dataclasses.replace(MASKING, queries=4))
  np.testing.assert_array_equal(asked, again)
  assert float(some.weight) == pytest.approx(asked.sum())
  assert float(some.sum) != pytest.approx(float(whole.sum), rel=1e-3)


def test_documents_of_a_row_are_blind_to_each_other(params):
  """One document's tokens change its own loss and no other's."""
  total, asked = run(params)
  other = batch()["tokens"].copy()
  other[0, 7:11] = (other[0, 7:11] + 1) % 7
  changed, _ = run(params, tokens=other)
  assert float(changed.sum) != pytest.approx(float(total.sum), rel=1e-4)
  data = batch()
  alone = {}
  for name, tokens in (("before", data["tokens"]), ("after", other)):
    here = np.arange(7, 11)[1:]
    canvas = make_canvas(MODEL.config, tokens[0, here][None], asked[0, here][None])
    alone[name] = float(log_likelihood(MODEL, params, canvas).sum())
  difference = float(total.sum - changed.sum)
  assert difference == pytest.approx(alone["after"] - alone["before"], abs=1e-4)


def see_all_documents(mutate):
  true = loss_lib.two_stream
  mutate(loss_lib, "two_stream", lambda config, canvas, rank, query, document: true(
    config, canvas, rank, query))  # fmt: skip


def ask_in_any_order(mutate):
  mutate(loss_lib, "lattice", lambda canvas: canvas.asked * 1)


@pytest.mark.parametrize("mutation", [see_all_documents, ask_in_any_order])
def test_the_comparison_sees(mutation, params, monkeypatch):
  mutation(monkeypatch.setattr)
  total, asked = run(params)
  assert abs(float(total.sum) - by_density(params, asked)) > 1e-2


def test_a_model_without_a_sink_is_refused():
  config = dataclasses.replace(MODEL.config, extra_embeddings=1)
  with pytest.raises(ValueError, match="model.extra_embeddings must be at least 2, got 1"):
    any_subset_loss(Model(config), MASKING)
