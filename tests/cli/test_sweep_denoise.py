"""The sweep of denoising: what it measures, and that it continues after it was killed."""

import json

import pytest

from configs.sweep import denoise_code
from mtjax.cli.sweep.folder import FINISHED, existing
from mtjax.cli.sweep.programs import PROGRAMS
from mtjax.registry.denoising.spelled import spelled_denoiser
from tests import tiny_model
from tests.cli.sweeps import launch, started, wait_for
from tests.source import ROOT

# The values of the project's sweep, and those of a short one.
SHORT = {
  "length = 64": "length = 8",
  "[16, 32, 64, 128]": "[2, 4]",
  "[16, 64]": "[4]",
  "[0.7, 1.0]": "[1.0]",
  '["keep", "remdm_cap:eta=0.02"]': '["remdm_cap:eta=0.02"]',
}


@pytest.fixture
def command(tmp_path):
  """The sweep of configs/sweep/denoise.py with two short runs of tiny models."""
  text = (ROOT / "configs" / "sweep" / "denoise.py").read_text()
  judge = tiny_model.save(tmp_path / "judge")
  for old, new in (SHORT | {'judge="target"': f'judge="{judge}"'}).items():
    assert text.count(old) == 1, old
    text = text.replace(old, new)
  file = tmp_path / "denoise.py"
  file.write_text(text)
  model = tiny_model.save(tmp_path / "model", **tiny_model.MASKED)
  folder = tmp_path / "runs"
  return folder, [f"--config={file}", f"--results={folder}", "--", f"--config.model={model}"]


def test_a_killed_sweep_of_denoising_continues_and_shows_quality_beside_passes(
  tmp_path, command, capsys, monkeypatch
):
  pytest.importorskip("matplotlib", reason="pip install 'mtjax[viz]'")
  monkeypatch.chdir(ROOT)
  folder, arguments = command
  first = started(tmp_path, *arguments)
  path = folder / "sweep.json"
  wait_for(lambda: path.exists() and existing(folder).state(0).state == FINISHED, seconds=240)
  first.kill()
  first.communicate()
  assert existing(folder).state(1).state != FINISHED
  before = (folder / "runs" / "000" / "output.json").stat().st_mtime_ns
  assert launch(*arguments) == 0, capsys.readouterr().err
  assert (folder / "runs" / "000" / "output.json").stat().st_mtime_ns == before
  rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
  assert [row["state"] for row in rows] == [FINISHED] * 2 and rows[0]["attempts"] == 1
  for row in rows:
    metrics, steps = row["metrics"], row["settings"]["config.denoise.steps"]
    assert metrics["forwards"] == 8 * steps, "eight prompts, and all passes of the plan"
    assert metrics["quality/bits_per_byte"] > 0 and metrics["quality/entropy"] > 0
  table = (folder / "table.md").read_text()
  for name in ("steps", "quality/bits_per_byte", "quality/entropy", "tokens_per_forward"):
    assert name in table
  assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_of_programs_has_a_column_per_figure(tmp_path):
  flags = PROGRAMS["evaluate"].flags()
  settings = denoise_code.sweep()
  assert all(set(one) <= set(flags) for one in settings)
  denoisers = [spelled_denoiser(one["methods"]).denoiser for one in settings]
  assert {(one.length, one.steps) for one in denoisers} == {
    (64, 32), (64, 64), (128, 64), (128, 128),
  }  # fmt: skip
  output = tmp_path / "output.json"
  figures = {settings[0]["methods"]: dict(score=0.5, interval=[0.1, 0.9])}
  output.write_text(json.dumps(dict(summaries=dict(humaneval=figures))))
  assert PROGRAMS["evaluate"].read(output) == {"humaneval/score": 0.5}
