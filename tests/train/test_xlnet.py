"""Training an XLNet: initial or random weights, killed and continued, and the folder."""

import dataclasses
import importlib.util
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.train import asarm_xlnet
from mtjax import checkpoints, train
from mtjax.anysubset import log_likelihood, make_canvas
from mtjax.checkpoints import families
from mtjax.models import Model, XLNetConfig
from mtjax.train import config as config_lib
from mtjax.train.export import load_trained
from mtjax.train.initial import initial_params
from mtjax.train.losses.any_subset import any_subset_loss
from mtjax.train.optimizers import OptimizerConfig, Schedule, make_optimizer
from tests.train.strata import MASKING, MODEL, one_text

needs_torch = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)


@pytest.fixture
def tiny(texts, sources):
  config = asarm_xlnet.tiny()
  config.model.update(dim=16, layers=1, heads=2, head_dim=8, mlp_dim=32, max_position=16)
  config.data.update(sources=sources, cache_dir=str(texts / "tokens"))
  config.update(batch=4, length=16, steps=6, warmup=1, decay=5, save_every=2)
  return config


def with_weights(config, folder):
  """Returns the config with random weights in a folder as initial ones; and these weights."""
  config.init = str(folder)
  model = config_lib.read(config).model
  params = model.init(jax.random.key(7))
  checkpoints.save(folder, model, params)
  return config, params


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, texts, sources):
  """Returns (losses by step, initial parameters, (the trained model, its folder))."""
  folder = tmp_path_factory.mktemp("tuned")
  config = asarm_xlnet.tiny()
  config.model.update(dim=16, layers=1, head_dim=8, mlp_dim=32)
  config.data.update(sources=sources, cache_dir=str(texts / "tokens"))
  config.update(batch=4, length=16, steps=40, save_every=40, warmup=4, decay=36)
  config.optimizer.learning_rate = 0.02
  config, initial = with_weights(config, folder / "source")
  assert train.run(config, folder / "run") == 0
  lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
  trained, step = load_trained(folder / "run")
  assert step == 40
  checkpoints.save(folder / "model", trained.model, trained.params, tokenizer=None)
  return [json.loads(line) for line in lines], initial, (trained, folder / "model")


def test_an_xlnet_of_random_weights_is_fine_tuned(tuned):
  lines, initial, (trained, _) = tuned
  assert lines[-1]["loss"] < lines[0]["loss"] - 1.5
  # The window of rates has moved too, from .15 to .85 and more of all but the first entries.
  assert lines[0]["rate"] < 0.25 and lines[-1]["rate"] > 0.6
  flat = jax.tree_util.tree_leaves_with_path(initial)
  moved = {
    str(path[-1].key): not np.array_equal(a, b)
    for (path, a), b in zip(flat, jax.tree.leaves(trained.params), strict=True)
  }
  assert moved.pop("segments")  # by weight decay: a text of one segment has no use for them
  assert not moved.pop("segment_bias")
  assert all(moved.values()), moved


def test_the_trained_model_is_written_and_read_again(tuned):
  _, _, (trained, folder) = tuned
  model, params = checkpoints.load(folder)
  assert not families.differences(model.config, trained.model.config)
  jax.tree.map(np.testing.assert_array_equal, params, trained.params)


@needs_torch
def test_transformers_gives_a_text_the_same_likelihood_as_the_trained_model(tuned):
  import torch
  import transformers

  _, _, (trained, folder) = tuned
  tokens = np.array([[97, 98, 32, 99, 100]])
  is_target = np.array([[False, True, True, False, True]])
  canvas = make_canvas(trained.model.config, tokens, is_target)
  ours = log_likelihood(trained.model, trained.params, canvas)[is_target]
  rank = np.cumsum(is_target[0]) * is_target[0]
  banned = (rank[:, None] <= rank[None]) & ((rank[:, None] > 0) | (rank[None] > 0))
  model = transformers.XLNetLMHeadModel.from_pretrained(folder).eval()
  (places,) = np.nonzero(is_target[0])
  target = torch.zeros(1, len(places), 5)
  target[0, torch.arange(len(places)), torch.tensor(places)] = 1
  mask = torch.tensor(banned[None], dtype=torch.float32)
  with torch.no_grad():
    logits = model(torch.tensor(tokens), perm_mask=mask, target_mapping=target).logits[0]
  theirs = torch.log_softmax(logits, dim=1)[torch.arange(len(places)), tokens[0][places]]
  np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


def test_a_run_that_ended_early_continues_as_if_it_had_not(tiny, tmp_path):
  tiny, _ = with_weights(tiny, tmp_path / "source")
  whole, _ = train.train(tiny, tmp_path / "run")
  for step in (4, 6):
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
  again, _ = train.train(tiny, tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_it_begins_with_the_first_layers_of_a_folder(tiny, tmp_path):
  tiny.model.layers = 2
  tiny, source = with_weights(tiny, tmp_path / "source")
  params = initial_params(config_lib.read(tiny).model.prefix(1), tiny.init)
  del source["layer_1"]
  jax.tree.map(np.testing.assert_array_equal, params, source)
  tiny.model.dim = 32
  with pytest.raises(
    ValueError, match="the model differs from that of init .*: dim is 32, there 16"
  ):
    initial_params(config_lib.read(tiny).model, tiny.init)


def test_weights_of_another_kind_are_refused():
  xlnet = config_lib.read(asarm_xlnet.tiny()).model
  with pytest.raises(ValueError, match="model.kind is 'xlnet', but init 'draft' is of the kind 't"):
    initial_params(xlnet, "draft")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"model.kind": "bert"}, "model.kind 'bert' is not one of: transformer, xlnet"),
    ({"model.kind": "transformer"}, "model.kv_heads: a model of the kind 'transformer' needs it"),
    ({"model.layers": 0}, "model.layers must be at least 1, got 0"),
    ({"model.activation": "tanh"}, "activation must be one of 'silu', 'gelu'"),
    ({"objective": "next_token"}, "an entry of an XLNet sees itself; train it with the objective"),
    ({"data.eval_sources": ("a=file:b.txt",)}, "data.eval_sources are scored from left to right"),
    ({"length": 17}, "length 17 exceeds the model's 16 positions"),
  ],
)
def test_a_bad_value_is_named_before_anything_runs(tiny, change, message):
  tiny.update_from_flattened_dict(change)
  with pytest.raises(ValueError, match=message):
    config_lib.read(tiny)


def test_settings_of_another_kind_are_named(config):
  config.model.kind = "xlnet"
  with pytest.raises(ValueError, match="model.attention, .*model.kv_heads.* has no such setting"):
    config_lib.read(config)


def test_runs_older_than_kinds_can_be_continued(config, tiny):
  old = config.to_dict()
  del old["model"]["kind"], old["optimizer"]["b1"], old["optimizer"]["b2"]
  identity = config_lib.read(config).identity()
  assert config_lib.read(old).identity() == identity and "kind" not in identity["model"]
  assert config_lib.read(tiny).identity()["model"]["kind"] == "xlnet"


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weights_decay_in_matrices_and_tables_and_not_in_biases(name):
  params = jax.tree.map(jnp.ones_like, MODEL.init(jax.random.key(0)))
  config = OptimizerConfig(name=name, learning_rate=0.1, muon_learning_rate=0.1, weight_decay=0.5)
  optimizer = make_optimizer(config, Schedule(9, 0, 0))
  none = jax.tree.map(jnp.zeros_like, params)
  updates, _ = jax.jit(lambda: optimizer.update(none, optimizer.init(params), params))()
  flat = jax.tree_util.tree_leaves_with_path(updates)
  decays = {
    jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("layer_0/")
    for path, x in flat
    if np.abs(x).max() > 0
  }
  matrices = ("attention/qkv/kernel", "attention/out/kernel", "mlp/up/kernel", "mlp/down/kernel")
  tables = ("embedding/table", "extra/table", "attention/segments")
  assert decays == {*matrices, *tables, "attention/relative"}


def test_muon_moves_the_projection_of_positions_as_a_matrix():
  params = MODEL.init(jax.random.key(0))
  optimizer = make_optimizer(OptimizerConfig(name="muon", weight_decay=0.0), Schedule(9, 0, 0))
  grads = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params)
  updates, _ = jax.jit(lambda: optimizer.update(grads, optimizer.init(params), params))()
  attention = updates["layer_0"]["attention"]
  sizes = np.linalg.svd(attention["relative"], compute_uv=False)
  assert sizes[-1] > 0.4 * sizes[0], f"not orthogonalised: {sizes}"
  # adamw's first step is the sign of the gradient.
  for bias in ("content_bias", "position_bias", "segment_bias"):
    np.testing.assert_allclose(np.abs(attention[bias]), 3e-3, rtol=1e-3)


def test_recomputed_layers_have_the_same_gradient():
  params = MODEL.init(jax.random.key(0))
  again = Model(dataclasses.replace(MODEL.config, remat="layer"))
  prepared = any_subset_loss(MODEL, MASKING).prepare(one_text(2, 9), jax.random.key(0), 0)

  def gradient(model):
    loss = any_subset_loss(model, MASKING)
    return jax.jit(jax.grad(lambda p: loss.total(p, prepared).sum))(params)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(again), gradient(MODEL)
  )


def test_the_runs_of_the_paper():
  """The scripts of 2504.20456 have 1e-5 per 32 rows, and 24 or 120 million rows of 512 tokens."""
  language, stories, continued = (
    asarm_xlnet.get_config(*name) for name in ((), ("stories",), ("continued",))
  )
  settings = config_lib.read(language)
  base = XLNetConfig(32000, 768, 12, 64, 3072, 12, max_position=512)
  assert settings.model.config == base and language.init == "xlnet-base-cased"
  masking = settings.objective_settings
  assert (masking.start, masking.end, masking.warmup) == ((0.15, 0.15), (0.85, 0.99), 5000)
  assert (settings.schedule.steps, settings.schedule.decay) == (750_000, 745_000)
  assert (settings.optimizer.name, settings.optimizer.b2) == ("adamw", 0.999)
  assert settings.optimizer.learning_rate == 1e-5
  assert stories.optimizer.learning_rate == pytest.approx(8e-5)
  assert stories.any_subset.end == (0.6, 0.75) and stories.steps == 468_750
  assert continued.any_subset.start == (0.9, 0.9) and continued.steps == 312_500
  assert continued.init == "models/asarm"
  with pytest.raises(ValueError, match="no run 'poems' of AS-ARM, only language, code, stories"):
    asarm_xlnet.get_config("poems")
