"""docs/guides/new_objective.md, done: its file and its row, and a run that trains with them."""

import json
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from docs.make.methods import objectives_table
from mtjax.train import config as config_lib
from mtjax.train import train
from mtjax.train.export import load_trained
from mtjax.train.losses import registry
from tests.source import ROOT, python_blocks
from tests.train import test_objectives as proofs

GUIDE = ROOT / "docs" / "guides" / "new_objective.md"


@pytest.fixture(scope="module", autouse=True)
def row():
  """The row of the guide, beside the others for as long as these tests run."""
  code, text = python_blocks(GUIDE)
  imports = "from mtjax.train.losses.z_loss import ZLossSettings, z_loss"
  assert imports in GUIDE.read_text(encoding="utf-8")
  module = types.ModuleType("z_loss")
  exec(compile(code, GUIDE.name, "exec"), module.__dict__)
  made = eval("{" + text + "}", {**vars(registry), **vars(module)})
  with mock.patch.dict(registry.OBJECTIVES, made):
    yield made["z_loss"]


def test_a_run_trains_with_it_and_its_model_is_loaded(config, tmp_path):
  config.objective = "z_loss"
  config.z_loss = registry.objective_settings("z_loss", coefficient=0.5)
  config.update(steps=2, warmup=0, decay=0, ema=0.0)
  settings = config_lib.read(config)
  assert settings.identity()["z_loss"] == dict(coefficient=0.5)
  state, _ = train(config, tmp_path)
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines] == [1, 2] and all(line["z"] > 0 for line in lines)
  model, step = load_trained(tmp_path)
  assert step == 2
  jax.tree.map(np.testing.assert_array_equal, model.params, state.params)


def test_it_is_what_the_guide_says(config):
  """Golden: log(Z) of equal logits is log(vocab), whatever the targets are."""
  config.update(objective="z_loss")
  plain = config_lib.read(config)
  config.z_loss = registry.objective_settings("z_loss", coefficient=0.5)
  settings = config_lib.read(config)
  vocab = settings.model.config.vocab_size
  params = jax.tree.map(jnp.zeros_like, settings.model.init(jax.random.key(0)))
  rows = {k: jnp.asarray(v) for k, v in proofs.batch(vocab).items()}
  found, small = (jax.jit(each.loss.total)(params, rows) for each in (settings, plain))
  count, nats = float(found.weight), np.log(vocab)
  assert float(found.sum) == pytest.approx(count * (nats + 0.5 * nats**2), rel=1e-5)
  assert float(small.sum) == pytest.approx(count * (nats + 1e-4 * nats**2), rel=1e-5)


def test_the_row_passes_the_proofs_of_every_row(row, tmp_path):
  with mock.patch("pathlib.Path.is_file", lambda path: True):  # its file is on the page only
    proofs.test_a_row_names_files_and_a_config_that_trains_with_it("z_loss")
  proofs.test_settings_are_a_frozen_dataclass_with_defaults_and_a_group_of_flags("z_loss", tmp_path)
  proofs.test_two_steps_do_not_depend_on_the_number_of_parts("z_loss")
  proofs.test_padding_counts_for_nothing("z_loss")
  assert "| `z_loss` | Cross-entropy of every next token, and a penalty" in objectives_table()


def test_settings_of_it_are_refused_as_all_are(config):
  config.z_loss = registry.objective_settings("z_loss")
  with pytest.raises(ValueError, match="has z_loss, settings of another objective"):
    config_lib.read(config)
  config.objective = "z_loss"
  config.z_loss.coefficient = -1.0
  with pytest.raises(ValueError, match="config.z_loss: coefficient must be at least 0, got -1.0"):
    config_lib.read(config)
