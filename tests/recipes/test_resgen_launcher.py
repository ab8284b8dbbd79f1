"""The launcher on tiny sets: figures, pictures and sounds by one command, and clear refusals."""

import numpy as np
import pytest

from configs.recipes import resgen_digits, resgen_speech
from mtjax.recipes.resgen.data.speech import read_wav, write_wav
from mtjax.recipes.resgen.run import equal_steps, experiment, read_dataset
from mtjax.report import results
from tests.forked import launch
from tests.recipes.test_resgen_data import mnist, tone


def spoken(folder):
  folder.mkdir()
  for digit in range(10):
    for index in (0, 1, 5, 6, 7):
      write_wav(folder / f"{digit}_ann_{index}.wav", tone(0.1, 200 + 100 * digit + index))
  return folder


def test_one_command_writes_figures_and_pictures(tmp_path):
  mnist(tmp_path / "mnist", count=60)
  path, folder = tmp_path / "a.json", tmp_path / "made"
  config = tmp_path / "tiny.py"
  config.write_text("from configs.recipes.resgen_digits import tiny as get_config")
  code, shown, errors = launch(
    "experiments.recipes.resgen", f"--config={config}", f"--data={tmp_path}", f"--results={path}",
    f"--folder={folder}", f"--picture={tmp_path}/all.png",
  )  # fmt: skip
  assert code == 0, errors
  assert "ResGen, 2 steps" in shown and "ResGen: step 4 of 4" in errors
  record = results.read(path)
  rows = {row["name"]: row for row in record["rows"]["quality"]}
  assert [row["forwards"] for row in rows.values()] == [None, None, 1, 2, 2, 32]
  assert "ResGen, 2 steps, order noise 0, temperature 1" in rows
  assert all(0 <= row["accuracy"] <= 1 and row["distance"] >= -1e-6 for row in rows.values())
  left = record["rows"]["training"]["left_by_depth"]
  assert len(left) == 2 and left[1] <= left[0] < 1
  assert record["settings"]["train_steps"] == 4
  assert (tmp_path / "all.png").stat().st_size > 500
  assert (folder / "ResGen_2_steps.png").read_bytes().startswith(b"\x89PNG")


def test_speech_is_written_as_sound(tmp_path):
  spoken(tmp_path / "fsdd")
  outcome = experiment(resgen_speech.tiny(), tmp_path, tell=lambda text: None)
  files = outcome.data.write(tmp_path, "made", outcome.made["ResGen, 1 step"][:3])
  sound = read_wav(files[0], "made")
  assert len(sound) == 3 * (4 * 4 * 64 + 1000) and np.abs(sound).max() > 0.5
  assert files[1].read_bytes().startswith(b"\x89PNG")


def test_equal_compute_gives_the_longer_rows_fewer_steps():
  from mtjax.recipes.resgen.network import ResGenConfig

  steps = [
    equal_steps(ResGenConfig(10, 16, depth, 64, 16, 8, dim=64), 1000) for depth in (1, 2, 4, 8)
  ]
  assert steps == sorted(steps, reverse=True) and steps[0] > 900 and 100 > steps[3] / 2 > 25


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config=digits", "--data=x"], "must be a file, for example configs/recipes/digits.py"),
    (["--data=x"], "--config is missing, for example --config=configs/recipes/resgen_digits.py"),
    (["--config=configs/recipes/resgen_digits.py", "--data=x"], "no *images-idx3-ubyte file in"),
  ],
)
def test_a_mistake_is_answered_in_a_line(arguments, message):
  code, _, errors = launch("experiments.recipes.resgen", *arguments)
  assert code == 2 and message in errors and len(errors.strip().splitlines()) == 1


def test_an_unknown_data_set_is_refused(tmp_path):
  config = resgen_digits.tiny()
  config.dataset = "faces"
  with pytest.raises(ValueError, match="dataset must be digits or speech, got 'faces'"):
    read_dataset(config, tmp_path)
