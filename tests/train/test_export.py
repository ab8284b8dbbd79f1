"""A run's folder gives the model that was trained, also while the run continues."""

import jax
import numpy as np
import pytest

from mtjax import train
from mtjax.train.export import load_trained


def test_the_newest_checkpoint_comes_back_as_a_model(tmp_path, config):
  state, params = train.train(config, tmp_path)
  before = sorted(path.name for path in (tmp_path / "checkpoints").rglob("*"))
  text, step = load_trained(tmp_path)
  assert step == int(state.step) == config.steps
  jax.tree.map(np.testing.assert_array_equal, text.params, params)
  assert text.generate(["ab"], max_tokens=4)[0][0].prompt == "ab"
  assert sorted(path.name for path in (tmp_path / "checkpoints").rglob("*")) == before


def test_reading_leaves_a_checkpoint_being_written_alone(tmp_path, config):
  train.run(config, tmp_path)
  half = tmp_path / "checkpoints" / "99.orbax-checkpoint-tmp"
  half.mkdir()
  (half / "part").write_text("being written")
  assert load_trained(tmp_path)[1] == config.steps
  assert (half / "part").is_file()


def test_a_broken_newest_checkpoint_is_passed_over_and_stays(tmp_path, config):
  train.run(config, tmp_path)
  manifest = tmp_path / "checkpoints" / str(config.steps) / "manifest" / "metadata"
  manifest.write_text("{")
  with pytest.warns(UserWarning, match="refused checkpoint"):
    assert load_trained(tmp_path)[1] < config.steps
  assert manifest.read_text() == "{"


def test_a_folder_that_is_no_run_is_named(tmp_path, config):
  with pytest.raises(FileNotFoundError, match="is not the folder of a training run"):
    load_trained(tmp_path / "nowhere")
  assert not (tmp_path / "nowhere").exists()
