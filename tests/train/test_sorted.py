"""Models that may be left early: one loss over all exits, initial weights, and the folder."""

import json
import shutil

import jax
import numpy as np
import pytest

from mtjax import checkpoints, frontier, train
from mtjax.models import Model, TransformerConfig, prefix_params, uniform_layers
from mtjax.train import config as config_lib
from mtjax.train.export import load_trained
from mtjax.train.losses.next_token import next_token_loss
from mtjax.train.losses.s2d import s2d_loss
from mtjax.train.step import make_step
from tests.compiled import forward
from tests.train.test_step import batch

EXITS = (1, 2, 3)
CONFIG = TransformerConfig(
  vocab_size=32,
  dim=16,
  heads=2,
  kv_heads=1,
  head_dim=8,
  mlp_dim=24,
  layers=uniform_layers(3),
  exits=EXITS,
)
MODEL = Model(CONFIG)


@pytest.fixture(scope="module")
def params():
  return MODEL.init(jax.random.key(0))


@pytest.fixture
def sorted_config(config):
  config.model.update(layers=2, exits=(1, 2))
  config.optimizer.name = "adamw"  # compiles faster than muon
  return config


def test_loss_and_gradient_are_the_mean_over_the_exits_as_separate_models(params):
  def scalar(loss):
    return jax.jit(jax.value_and_grad(lambda p: loss(p, batch(), None, 0)[:2], has_aux=True))

  (total, weight), grads = scalar(s2d_loss(MODEL))(params)
  alone = []
  for layers in EXITS:
    cut = MODEL.prefix(layers)
    value, grad = scalar(next_token_loss(cut))(prefix_params(params, layers))
    missing = {k: jax.tree.map(np.zeros_like, v) for k, v in params.items() if k not in grad}
    alone.append((value[0], {**grad, **missing}))
    assert value[1] == weight
  np.testing.assert_allclose(total, sum(value for value, _ in alone) / 3, rtol=1e-6)
  mean = jax.tree.map(lambda *g: sum(g) / 3, *(grad for _, grad in alone))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, mean)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_exit_is_reported(params, accumulate):
  import optax

  from mtjax.train.step import init_state

  optimizer = optax.sgd(0.1)
  state = init_state(MODEL, optimizer, seed=0, params=params)
  step = make_step(s2d_loss(MODEL), optimizer, accumulate=accumulate)
  _, metrics = jax.jit(step)(state, batch())
  each = [float(metrics[f"loss/exit_{layers}"]) for layers in EXITS]
  assert len(set(each)) == 3
  np.testing.assert_allclose(metrics["loss"], np.mean(each), rtol=1e-6)
  total = next_token_loss(MODEL)(params, batch(), None, 0)
  np.testing.assert_allclose(each[-1], total.sum / total.weight, rtol=1e-5)


def test_all_exits_learn_and_the_folder_keeps_them(tmp_path, sorted_config):
  sorted_config.update(steps=40, decay=10, warmup=4)
  train.run(sorted_config, tmp_path / "run")
  lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
  for layers in (1, 2):
    name = f"loss/exit_{layers}"
    assert lines[-1][name] < lines[0][name] - 1, f"{name} did not fall"
  text, _ = load_trained(tmp_path / "run")
  assert text.model.config.exits == (1, 2)
  checkpoints.save(tmp_path / "model", text.model, text.params)
  raw = json.loads((tmp_path / "model" / "config.json").read_text())
  assert raw["exits"] == [1, 2] and raw["model_type"] == "llama"
  model, loaded = checkpoints.load(tmp_path / "model")
  assert model == text.model
  jax.tree.map(np.testing.assert_array_equal, loaded, text.params)


def test_a_model_without_exits_is_written_as_before(tmp_path, params):
  checkpoints.save(tmp_path, MODEL.prefix(2), prefix_params(params, 2))
  assert "exits" not in json.loads((tmp_path / "config.json").read_text())


def test_a_run_that_ended_early_continues_as_if_it_had_not(tmp_path, sorted_config):
  whole, _ = _train(sorted_config, tmp_path)
  for step in (4, 6):
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
  again, _ = _train(sorted_config, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, again, whole)


def _train(config, folder):
  """Trains from a folder with a model of random weights."""
  config.init = str(folder / "source")
  model = config_lib.read(config).model
  checkpoints.save(config.init, model, model.init(jax.random.key(7)))
  return train.train(config, folder / "run")


def test_a_run_begins_with_the_first_layers_of_a_folder(tmp_path, config):
  folder = str(tmp_path / "source")
  fields = {k: config.model[k] for k in ("vocab_size", "dim", "heads", "kv_heads", "head_dim")}
  source = Model(TransformerConfig(**fields, mlp_dim=32, max_position=64, layers=uniform_layers(3)))
  initial = source.init(jax.random.key(7))
  checkpoints.save(folder, source, initial)
  config.init = folder
  config.model.update(layers=2, exits=(1, 2))
  config.update(steps=1, decay=0, warmup=0)
  config.optimizer.update(name="adamw", learning_rate=1e-9, weight_decay=0.0)
  _, after = train.train(config, tmp_path / "run")
  near = prefix_params(initial, 2)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, near)
  identity = config_lib.read(config).identity()
  assert identity["init"] == folder and identity["model"]["exits"] == (1, 2)


def test_runs_older_than_exits_can_be_continued(config):
  old = config.to_dict()
  del old["init"], old["model"]["exits"]
  identity = config_lib.read(old).identity()
  assert identity == config_lib.read(config).identity()
  assert "init" not in identity and "exits" not in identity["model"]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(layers=4), "model.layers is 4, but init 'draft' has only 2 layers"),
    (dict(dim=64), "the model differs from that of init 'draft': .*dim is 64, there 128"),
  ],
)
def test_weights_that_do_not_fit_are_named(change, message):
  from configs.train.bundled_draft import get_config
  from mtjax.train.initial import initial_params

  config = get_config()
  config.data.sources = ("builtin:tinyshakespeare",)
  config.model.update(change)
  with pytest.raises(ValueError, match=message):
    initial_params(config_lib.read(config).model, "draft")


@pytest.mark.parametrize("exits", [(1, 2), (2, 1, 3), (0, 3), (1, 1, 3), (1, 4)])
def test_exits_rise_to_the_last_layer(exits):
  with pytest.raises(ValueError, match="exits must be numbers of layers, rising to all 3"):
    TransformerConfig(
      vocab_size=8, dim=8, heads=1, kv_heads=1, head_dim=8, mlp_dim=8,
      layers=uniform_layers(3), exits=exits,
    )  # fmt: skip


def test_a_sorted_loss_without_exits_is_refused():
  with pytest.raises(ValueError, match="the S2D loss needs model.exits"):
    s2d_loss(MODEL.prefix(2))


def test_exits_of_one_pass_are_the_models_that_were_cut_off(tmp_path, params):
  tokens = frontier.causal(batch()["tokens"])
  hidden, first = None, 0
  for last in EXITS:
    output, hidden = MODEL.segment(params, tokens, first=first, last=last, hidden=hidden)
    first = last
    checkpoints.save(tmp_path / str(last), MODEL.prefix(last), prefix_params(params, last))
    cut, own = checkpoints.load(tmp_path / str(last))
    alone = forward(cut, own, tokens)
    np.testing.assert_allclose(output.logits, alone.logits, atol=1e-5)
    np.testing.assert_allclose(output.features, alone.features, atol=1e-5)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (dict(first=1, last=1), "layers 1 to 1 are not some of the 3"),
    (dict(first=2, last=4), "layers 2 to 4 are not some of the 3"),
    (dict(first=1, last=2), "hidden must be given if, and only if"),
  ],
)
def test_segments_that_do_not_exist_are_refused(params, arguments, message):
  with pytest.raises(ValueError, match=message):
    MODEL.segment(params, frontier.causal(batch()["tokens"]), **arguments)
