"""The any-subset loss is -log p of the target tokens, document by document."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.anysubset import log_likelihood, make_canvas
from mtjax.anysubset.masking import Masking
from mtjax.anysubset.orders import right_to_left
from mtjax.frontier import causal
from mtjax.models import Model, TransformerConfig, XLNetConfig, uniform_layers
from mtjax.train import config as config_lib
from mtjax.train.initial import initial_params
from mtjax.train.losses import any_subset as loss_lib
from mtjax.train.losses.any_subset import any_subset_loss
from tests.compiled import forward

MODEL = Model(
  TransformerConfig(
    vocab_size=7,
    dim=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    mlp_dim=24,
    layers=uniform_layers(1),
    predicts="any_subset",
    extra_embeddings=2,
    extra_names=("query", "sink"),
    max_position=64,
  )
)
XLNET = Model(XLNetConfig(vocab_size=7, dim=16, heads=2, head_dim=8, mlp_dim=24, depth=1))
LENGTHS = (7, 4, 9)  # documents of the first row; the second is one of 20
MASKING = Masking(start=(0.3, 0.3), end=(0.3, 0.6))


@pytest.fixture(scope="module", params=["two_streams", "one_stream", "xlnet"])
def trained(request):
  """Returns (model, params)."""
  one_stream = Model(dataclasses.replace(MODEL.config, target_conditioning="added"))
  model = dict(two_streams=MODEL, one_stream=one_stream, xlnet=XLNET)[request.param]
  params = model.init(jax.random.key(0))
  return model, jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, params)


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


@functools.cache
def program(model, masking):
  """Returns a function of (params, batch) that returns (loss, sampled targets), as one program."""
  seen = {}

  class Recorded(Masking):
    def sample(self, key, open_, step):
      seen["is_target"] = super().sample(key, open_, step)
      return seen["is_target"]

  masking = Recorded(**{f.name: getattr(masking, f.name) for f in dataclasses.fields(masking)})

  def loss(params, batch):
    total = any_subset_loss(model, masking)(params, batch, jax.random.key(3), jnp.asarray(0))
    return total, seen["is_target"]

  return jax.jit(loss)


def run(trained, masking=MASKING, **changes):
  """Returns (loss, sampled targets)."""
  model, params = trained
  total, is_target = program(model, masking)(params, {**batch(), **changes})
  return total, np.asarray(is_target)


def by_density(trained, is_target):
  """Scores every document alone, without its first token, whose place has the sink or nothing."""
  model, params = trained
  data, nats = batch(), 0.0
  for row in range(2):
    for number in sorted(set(data["segment"][row]) - {0}):
      here = np.flatnonzero(data["segment"][row] == number)[1:]
      if not is_target[row, here].any():
        continue
      canvas = make_canvas(
        model.config, data["tokens"][row, here][None], is_target[row, here][None]
      )
      nats -= log_likelihood(model, params, canvas).sum()
  return nats


def test_the_loss_is_the_negative_density_of_the_targets(trained):
  total, is_target = run(trained)
  assert not is_target[batch()["position"] == 0].any() and is_target.sum() > 8
  assert float(total.weight) == is_target.sum()
  assert float(total.sum) == pytest.approx(by_density(trained, is_target), rel=1e-5)
  assert float(total.parts["rate"] / total.weight) == pytest.approx(is_target.sum() / 40)


def test_fewer_queries_weigh_as_much_as_all_targets(trained):
  """With fewer queries than targets the loss is an estimate; the targets are the same."""
  whole, is_target = run(trained)
  some, again = run(trained, dataclasses.replace(MASKING, queries=4))
  np.testing.assert_array_equal(is_target, again)
  assert float(some.weight) == pytest.approx(is_target.sum())
  assert float(some.sum) != pytest.approx(float(whole.sum), rel=1e-3)


def test_documents_of_a_row_do_not_see_each_other(trained):
  """One document's tokens change its own loss and no other's."""
  model, params = trained
  total, is_target = run(trained)
  other = batch()["tokens"].copy()
  other[0, 7:11] = (other[0, 7:11] + 1) % 7
  changed, _ = run(trained, tokens=other)
  assert float(changed.sum) != pytest.approx(float(total.sum), rel=1e-4)
  data = batch()
  alone = {}
  for name, tokens in (("before", data["tokens"]), ("after", other)):
    here = np.arange(7, 11)[1:]
    canvas = make_canvas(model.config, tokens[0, here][None], is_target[0, here][None])
    alone[name] = float(log_likelihood(model, params, canvas).sum())
  difference = float(total.sum - changed.sum)
  assert difference == pytest.approx(alone["after"] - alone["before"], abs=1e-4)


def see_all_documents(mutate):
  true = loss_lib.order_frontier
  mutate(loss_lib, "order_frontier", lambda config, canvas, rank, query, document: (
    true(config, canvas, rank, query)))  # fmt: skip


def order_from_the_right(mutate):
  mutate(loss_lib, "lattice", right_to_left)


@pytest.mark.parametrize("mutation", [see_all_documents, order_from_the_right])
def test_the_comparison_notices(mutation, trained, monkeypatch):
  mutation(monkeypatch.setattr)
  # The program of the other tests was traced without the mutation.
  monkeypatch.setitem(globals(), "program", program.__wrapped__)
  total, is_target = run(trained)
  assert abs(float(total.sum) - by_density(trained, is_target)) > 1e-2


def test_a_model_without_a_sink_is_refused():
  config = dataclasses.replace(MODEL.config, extra_embeddings=1, extra_names=("query",))
  with pytest.raises(ValueError, match="model.extra_embeddings must be at least 2, got 1"):
    any_subset_loss(Model(config), MASKING)


def begun_with(kind, config, folder):
  """Returns a plain model and one of a single stream, each with its initial parameters."""
  config.init = str(folder / "source")
  plain = config_lib.read(config).model
  source = plain.init(jax.random.key(7))
  checkpoints.save(config.init, plain, source)
  config.objective = "any_subset"
  config.model.update(predicts="any_subset", target_conditioning=kind)
  config.model.update(extra_embeddings=2, extra_names=("query", "sink"))
  model = config_lib.read(config).model
  return (plain, source), (model, initial_params(model, config.init))


@pytest.mark.parametrize("kind", ["added", "adaptive_norm"])
def test_one_stream_begins_with_the_weights_of_a_plain_model(kind, config, tmp_path):
  """What the source lacks is random; with `adaptive_norm`, the model begins as a plain one."""
  (plain, source), (model, params) = begun_with(kind, config, tmp_path)
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, model.shapes())
  text = causal(jnp.arange(5)[None])
  expected = forward(plain, source, text).logits
  logits = forward(model, params, text.replace(target=text.position + 1)).logits
  assert np.allclose(logits, expected, atol=1e-5) == (kind == "adaptive_norm")


def test_every_parameter_of_one_stream_learns():
  model = Model(dataclasses.replace(MODEL.config, target_conditioning="adaptive_norm"))
  # Modulations are initialised to 0, which gives the targets' table no gradient.
  params = jax.tree.map(lambda x: x + 0.1, model.init(jax.random.key(0)))
  loss = any_subset_loss(model, MASKING)
  grads = jax.jit(jax.grad(lambda p: loss(p, batch(), jax.random.key(0), 0).sum))(params)
  still = [k for k, g in jax.tree_util.tree_leaves_with_path(grads) if not np.abs(g).max() > 0]
  assert not still


def test_an_xlnet_does_not_see_the_first_entry_of_a_document():
  """A canvas of the text has no entry there either."""
  params = XLNET.init(jax.random.key(0))
  other = np.where(batch()["position"] == 0, 3, batch()["tokens"])
  assert (other != batch()["tokens"]).any()
  (one, _), (two, _) = (run((XLNET, params)), run((XLNET, params), tokens=other))
  assert float(one.sum) == float(two.sum) > 0


def test_runs_older_than_target_conditioning_can_be_continued(config):
  old = config.to_dict()
  del old["model"]["target_conditioning"]
  identity = config_lib.read(old).identity()
  assert identity == config_lib.read(config).identity()
  assert "target_conditioning" not in identity["model"]
