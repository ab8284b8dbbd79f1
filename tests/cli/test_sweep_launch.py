"""Sweeps that others run: array jobs of Slurm, and experiments of XManager."""

import asyncio
import json
import os
import subprocess
import sys
import types

import pytest

from mtjax.cli.sweep.folder import FINISHED, State, existing
from tests.cli.sweeps import environment, launch, started
from tests.source import ROOT


def test_an_element_of_the_array_job_runs_one_run_and_the_rest_is_collected(
  tmp_path, config, capsys, monkeypatch
):
  monkeypatch.chdir(ROOT)
  folder = tmp_path / "runs"
  assert launch(config, f"--results={folder}", "--launch=slurm", "--workers=2", "--seeds=2") == 0
  out, errors = capsys.readouterr()
  script = folder / "sweep.sbatch"
  assert out == f"sbatch {script}\n" and "--collect" in errors
  lines = script.read_text().splitlines()
  assert lines[0] == "#!/bin/bash" and "# 3: x=2 seed=1" in lines
  assert "#SBATCH --array=0-5%2" in lines and "#SBATCH --requeue" in lines
  assert f"#SBATCH --output={folder}/slurm/%A_%a.txt" in lines and (folder / "slurm").is_dir()
  # Slurm reads its lines only up to the first command.
  commands = [i for i, line in enumerate(lines) if line and not line.startswith("#")]
  assert max(i for i, line in enumerate(lines) if line.startswith("#SBATCH")) < commands[0]
  element = dict(environment(tmp_path), SLURM_ARRAY_TASK_ID="3")
  subprocess.run(["bash", script], env=element, check=True, cwd=tmp_path, timeout=120)
  states = [existing(folder).state(index).state for index in range(6)]
  assert states == ["waiting"] * 3 + ["finished"] + ["waiting"] * 2
  assert launch(f"--results={folder}", "--run=3") == 0, "it has finished already"
  assert launch(f"--results={folder}", "--run=0") == 0
  with pytest.raises(ValueError, match="--run must be in 0, ..., 5, got 6"):
    launch(f"--results={folder}", "--run=6")
  capsys.readouterr()
  assert launch(f"--results={folder}", "--collect") == 1
  out, errors = capsys.readouterr()
  assert "| 1 | 1 of 2 | 1 |" in out and "| 2 | 1 of 2 | 3 |" in out
  assert "4 of 6 runs have not finished: 1 (waiting), 2 (waiting), 4 (w" in errors
  rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
  assert [row["attempts"] for row in rows] == [1, 0, 0, 1, 0, 0]


def test_a_run_that_fails_gives_its_exit_code(tmp_path, config, capsys):
  folder = tmp_path / "runs"
  assert launch(config, f"--results={folder}", "--launch=slurm", "--", "--scratch=/no/such") == 0
  assert launch(f"--results={folder}", "--run=1") == 1
  assert "run 1 failed (x=2), exit code 1:" in capsys.readouterr().err


def test_slurm_cannot_hold_every_name(tmp_path, config):
  with pytest.raises(ValueError, match="Slurm needs a folder without spaces, quotes and %: got"):
    launch(config, f"--results={tmp_path / 'my runs'}", "--launch=slurm")


class FakeManager:
  """The part of XManager's API that a sweep uses; run 1 fails."""

  def __init__(self, folder):
    self.folder = folder
    self.packaged, self.jobs, self.running, self.max_running = [], [], 0, 0
    fields = types.SimpleNamespace
    self.xm = types.SimpleNamespace(
      Packageable=lambda **settings: fields(**settings),
      Binary=lambda **settings: fields(**settings),
      Job=lambda **settings: fields(**settings),
      ExperimentUnitError=RuntimeError,
    )
    local = type("Local", (), dict(Spec=type("Spec", (), {})))
    self.xm_local = types.SimpleNamespace(Local=local, create_experiment=self.create)

  def create(self, experiment_title):
    self.title = experiment_title
    return self

  async def __aenter__(self):
    return self

  async def __aexit__(self, *error):
    raise RuntimeError("a work unit has failed")

  def package(self, packageables):
    self.packaged += packageables
    return packageables

  async def add(self, job):
    self.jobs.append(job)
    return types.SimpleNamespace(wait_until_complete=lambda: self._run(job.args["run"]))

  async def _run(self, index):
    self.running += 1
    self.max_running = max(self.running, self.max_running)
    await asyncio.sleep(0.01)
    folder = existing(self.folder)
    folder.run(index).mkdir(parents=True, exist_ok=True)
    if index == 1:
      folder.set_state(index, State("failed", 3, 1, 1.0))
    else:
      folder.set_state(index, State(FINISHED, 0, 1, 1.0, metrics=dict(sum=index)))
    self.running -= 1
    if index == 1:
      raise self.xm.ExperimentUnitError("it failed")


def test_xmanager_gets_a_job_per_run(tmp_path, config, monkeypatch, capsys):
  folder = tmp_path / "runs"
  fake = FakeManager(folder)
  monkeypatch.setitem(sys.modules, "xmanager", types.SimpleNamespace(**vars(fake)))
  code = launch(config, f"--results={folder}", "--launch=xmanager", "--workers=2")
  assert code == 1 and "1 of 3 runs have not finished: 1 (failed)" in capsys.readouterr().err
  assert fake.title == "numbers" and fake.max_running == 2
  assert [job.args for job in fake.jobs] == [dict(run=0), dict(run=1), dict(run=2)]
  (package,) = fake.packaged
  assert type(package.executor_spec) is fake.xm_local.Local.Spec
  assert all(job.executable is package for job in fake.jobs)
  assert all(type(job.executor) is fake.xm_local.Local for job in fake.jobs)
  script = package.executable_spec.path
  assert os.access(script, os.X_OK)
  run = subprocess.run(
    [script, "--run=2"], env=environment(tmp_path), capture_output=True, text=True, timeout=120
  )
  assert run.returncode == 0, run.stderr
  fake.jobs.clear()
  assert launch(config, f"--results={folder}", "--launch=xmanager") == 1
  assert [job.args for job in fake.jobs] == [dict(run=1)], "what has finished is not run again"


def test_xmanager_itself_runs_a_sweep(tmp_path, config, monkeypatch):
  pytest.importorskip("xmanager", reason="pip install 'mtjax[xmanager]'")
  monkeypatch.setenv("HOME", str(tmp_path))  # XManager keeps its database there
  results = f"--results={tmp_path / 'runs'}"
  process = started(tmp_path, config, results, "--launch=xmanager", "--workers=3")
  out, errors = process.communicate(timeout=240)
  assert process.returncode == 0, errors
  assert "| 3 | 1 | 3 |" in out


def test_without_xmanager_the_extra_is_named(tmp_path, config, monkeypatch):
  monkeypatch.setitem(sys.modules, "xmanager", None)
  with pytest.raises(ImportError, match=r"--launch=xmanager needs xmanager: .*mtjax\[xmanager\]"):
    launch(config, f"--results={tmp_path / 'runs'}", "--launch=xmanager")
