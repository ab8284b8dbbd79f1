"""The kind of a run's model: its config says it, and in older runs its objective."""

import json

import jax
import numpy as np
import pytest

from configs.train import bundled_anysubset, masked_diffusion, sorted_draft, uniform_diffusion
from mtjax import checkpoints
from mtjax.checkpoints.families import express, read_config
from mtjax.train import config as config_lib
from mtjax.train.initial import initial_params
from mtjax.train.losses.registry import defaults_of


def read(config):
  config.data.sources = ("builtin:tinyshakespeare",)
  return config_lib.read(config)


def before(config):
  """Returns the config as an older run saved it, without `predicts` and names of embeddings."""
  old = json.loads(json.dumps(config.to_dict()))
  del old["model"]["predicts"], old["model"]["extra_names"]
  old["masking"] = old.pop("any_subset", json.loads(json.dumps(defaults_of("any_subset"))))
  return old


@pytest.mark.parametrize("count", [2, 3])
def test_older_runs_have_any_subset_models_and_can_be_continued(count):
  config = bundled_anysubset.tiny()
  config.model.extra_embeddings = count
  now, then = read(config), config_lib.read(before(config))
  assert then.model == now.model
  assert (now.model.config.predicts, now.model.config.extra_names) == (
    "any_subset",
    ("query", "sink"),
  )
  assert then.objective_settings == now.objective_settings != type(now.objective_settings)()
  assert then.identity() == now.identity()
  assert not {"predicts", "extra_names"} & now.identity()["model"].keys()
  # As checkpoints of version 0.1.0 have them.
  assert now.identity()["objective"] == "any_subset" and now.identity()["masking"]["queries"] == 8


def test_older_causal_runs_can_be_continued(config):
  config.model.extra_embeddings = 2
  now, then = config_lib.read(config), config_lib.read(before(config))
  assert then.model == now.model and then.model.config.predicts == "next_token"
  assert then.identity() == now.identity() and "predicts" not in now.identity()["model"]
  config.model.extra_names = ("prompt",)
  assert config_lib.read(config).identity()["model"]["extra_names"] == ("prompt",)


def test_runs_from_before_that_train_exits_can_be_continued():
  """Their objective was called next_token, in configs and in checkpoints."""
  config = sorted_draft.tiny()
  now = read(config)
  old = before(config) | dict(objective="next_token")
  then = config_lib.read(old)
  assert then.objective == now.objective == "s2d"
  assert then.identity() == now.identity() and now.identity()["objective"] == "next_token"


def test_a_model_and_an_objective_that_differ_are_refused(config):
  config.objective = "any_subset"
  with pytest.raises(
    ValueError, match="trains models of model.predicts 'any_subset', and this one has 'next"
  ):
    config_lib.read(config)
  config.update(objective="next_token")
  config.model.update(predicts="any_subset")
  with pytest.raises(ValueError, match="'next_token' trains .* 'next_token', .* has 'any_subset'"):
    config_lib.read(config)


def test_a_causal_model_with_new_embeddings_begins_with_the_weights_of_one_without(
  config, tmp_path
):
  plain = config_lib.read(config).model
  source = plain.init(jax.random.key(3))
  checkpoints.save(tmp_path, plain, source)
  config.model.update(extra_embeddings=2, extra_names=("prompt", "mask"))
  model = config_lib.read(config).model
  params = initial_params(model, str(tmp_path))
  assert params["extra"]["table"].shape == (2, 16)
  assert (params["embedding"]["table"] == source["embedding"]["table"]).all()


def test_a_new_mask_begins_as_the_mean_token_or_as_the_sources_query(config, tmp_path):
  """What both have keeps its row, wherever it stands; what the source lacks is random."""
  plain = config_lib.read(config).model
  source = plain.init(jax.random.key(3))
  checkpoints.save(tmp_path / "causal", plain, source)
  config.update(objective="masked_diffusion")
  config.model.update(predicts="masked", alignment="shifted")
  config.model.update(extra_embeddings=2, extra_names=("sink", "mask"))
  masked = config_lib.read(config).model
  params = initial_params(masked, str(tmp_path / "causal"))
  assert np.allclose(params["extra"]["table"][1], source["embedding"]["table"].mean(axis=0))
  checkpoints.save(tmp_path / "masked", masked, params)
  for names in (("query", "sink"), ("mask", "sink", "query")):
    table = jax.random.normal(jax.random.key(4), (len(names), 16))
    config.update(objective="any_subset")
    config.model.update(predicts="any_subset", alignment="aligned")
    config.model.update(extra_embeddings=len(names), extra_names=names)
    other = config_lib.read(config).model
    checkpoints.save(tmp_path / names[0], other, {**source, "extra": {"table": table}})
    found = initial_params(masked, str(tmp_path / names[0]))["extra"]["table"]
    rows = [names.index("sink"), 0]  # the mask is the query, where there is no mask
    np.testing.assert_array_equal(found, table[np.array(rows)])
  assert (
    initial_params(masked, str(tmp_path / "masked"))["extra"]["table"] == params["extra"]["table"]
  ).all()


@pytest.mark.parametrize(
  ("make", "noise"),
  [(masked_diffusion, "absorbing"), (uniform_diffusion, "hybrid"), (uniform_diffusion, "uniform")],
)
def test_a_masked_model_and_its_folder_say_what_noise_it_was_trained_with(make, noise):
  config = make.tiny()
  if make is uniform_diffusion:
    config.uniform_diffusion.noise = noise
    if noise == "uniform":
      config.model.update(extra_embeddings=0, extra_names=())
  run = read(config)
  assert run.model.config.noise == noise
  assert "noise" not in run.identity()["model"], "as in runs from before it was a field"
  family, raw = express(run.model.config)
  written = dict(raw, model_type=family.model_type)
  assert read_config(written)[1].noise == noise and ("noise" in raw) == (noise != "absorbing")
  assert read_config(dict(written, noise="absorbing", extra_embeddings=1))[1].noise == "absorbing"
  with pytest.raises(ValueError, match="noise must be one of 'absorbing', 'uniform', 'hybrid'"):
    read_config(dict(written, noise="gauss", extra_embeddings=1))


def test_noise_is_the_objectives_to_say():
  config = masked_diffusion.tiny()
  config.model.noise = "uniform"
  with pytest.raises(ValueError, match="model.noise: a model of the kind .* has no such setting"):
    read(config)
