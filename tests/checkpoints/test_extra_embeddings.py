"""Folders of models with extra embeddings: those older than names, and causal models."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.pretrained import model_path

PLAIN = TransformerConfig(
  vocab_size=8,
  dim=16,
  heads=2,
  kv_heads=1,
  head_dim=8,
  mlp_dim=16,
  layers=uniform_layers(1),
  extra_embeddings=3,
)
ANY_SUBSET = dataclasses.replace(PLAIN, predicts="any_subset", extra_names=("query", "sink"))


def saved(folder, config):
  model = Model(config)
  params = model.init(jax.random.key(0))
  checkpoints.save(folder, model, params)
  return params, json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("predicts", ["next_token", "masked"])
def test_models_that_are_not_any_subset_are_saved_and_loaded(tmp_path, predicts):
  config = dataclasses.replace(PLAIN, predicts=predicts, extra_names=("prompt",), exits=(1,))
  params, raw = saved(tmp_path, config)
  assert (raw["model_type"], raw["predicts"], raw["extra_names"]) == (
    "mtjax_extended",
    predicts,
    ["prompt"],
  )
  model, loaded = checkpoints.load(tmp_path)
  assert model.config == config
  jax.tree.map(np.testing.assert_array_equal, loaded, params)


@pytest.mark.parametrize(
  ("count", "names"), [(1, ("query",)), (2, ("query", "sink")), (3, ("query", "sink"))]
)
def test_folders_older_than_names_are_any_subset_models(tmp_path, count, names):
  config = dataclasses.replace(ANY_SUBSET, extra_embeddings=count, extra_names=names)
  params, raw = saved(tmp_path, config)
  assert raw["model_type"] == "mtjax_any_subset"
  del raw["predicts"], raw["extra_names"]
  (tmp_path / "config.json").write_text(json.dumps(raw))
  model, loaded = checkpoints.load(tmp_path)
  assert model.config == config
  jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_other_names_of_an_any_subset_model_are_kept(tmp_path):
  config = dataclasses.replace(ANY_SUBSET, extra_names=("query", "sink", "mask"))
  saved(tmp_path, config)
  assert checkpoints.load(tmp_path)[0].config == config


def test_what_a_model_predicts_is_not_lost_without_extra_embeddings(tmp_path):
  config = dataclasses.replace(PLAIN, predicts="masked", extra_embeddings=0)
  with pytest.raises(ValueError, match="predicts is 'masked', there 'next_token'|no extra embedd"):
    saved(tmp_path, config)


def test_the_bundled_any_subset_model_has_its_kind_in_its_config():
  config = checkpoints.load(model_path("anysubset"))[0].config
  assert (config.predicts, config.extra_names) == ("any_subset", ("query", "sink"))
