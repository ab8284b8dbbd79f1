"""A run that is killed and started again equals an undisturbed run, bit by bit."""

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from mtjax import train
from mtjax.checkpoints.training import ForeignCheckpoint
from mtjax.train.monitor.metrics import JsonLines
from tests.forked import launch

STEPS = 240


def command(workdir, sources):
  module, config = "experiments.train", "--config=configs/train/tiny.py"
  return (
    module, config, f"--workdir={workdir}", f"--config.data.sources={sources!r}",
    f"--config.steps={STEPS}",
  )  # fmt: skip


def finish(workdir, sources):
  code, _, errors = launch(*command(workdir, sources))
  assert code == 0, errors[-2000:]
  return errors


def stop_at(workdir, sources, step, number):
  """Starts the run and sends it a signal once metrics.jsonl has reached `step`."""
  before = last_step(workdir)

  def stop(process):
    deadline = time.monotonic() + 300
    while (reached := last_step(workdir)) < step and is_there(process):
      assert time.monotonic() < deadline
      # A process starts for seconds, in which it needs the cores; a step takes milliseconds.
      time.sleep(0.02 if reached == before else 0.001)
    if is_there(process):
      os.kill(process, number)

  code, _, errors = launch(*command(workdir, sources), meanwhile=stop)
  assert last_step(workdir) >= step, f"ended before step {step}: {errors[-2000:]}"
  return code


def is_there(process) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  return True


def last_step(workdir) -> int:
  path = workdir / "metrics.jsonl"
  lines = path.read_text().split("\n") if path.exists() else []
  return json.loads(lines[-2])["step"] if len(lines) > 1 else 0


def curve(workdir):
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "eta_seconds")}
          for line in lines]  # fmt: skip


def final(workdir):
  """Returns the CRC of every array of the last state: parameters, moments, average, seed."""
  manifest = workdir / "checkpoints" / str(STEPS) / "manifest" / "metadata"
  return json.loads(manifest.read_text())["arrays"]


def check_equal(workdir, undisturbed):
  assert [line["step"] for line in curve(workdir)] == list(range(1, STEPS + 1))
  assert curve(workdir) == curve(undisturbed)
  assert final(workdir) == final(undisturbed)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, sources):
  workdir = tmp_path_factory.mktemp("undisturbed")
  finish(workdir, sources)
  return workdir


def test_killed_twice_and_terminated_once_it_is_the_same_run(tmp_path, sources, undisturbed):
  # 47 lies between two saves; 91 just after one began.
  assert stop_at(tmp_path / "run", sources, 47, signal.SIGKILL) == -signal.SIGKILL
  assert stop_at(tmp_path / "run", sources, 91, signal.SIGKILL) == -signal.SIGKILL
  assert stop_at(tmp_path / "run", sources, 132, signal.SIGTERM) == train.PREEMPTED_EXIT
  stopped = last_step(tmp_path / "run")
  assert f"from step {stopped} to" in finish(tmp_path / "run", sources), "SIGTERM lost steps"
  check_equal(tmp_path / "run", undisturbed)


def test_sigterm_saves_at_whatever_point_of_a_step_it_comes(tmp_path, config, monkeypatch, capsys):
  """Most of a step is waiting for its metrics; the signal nearly always comes there."""
  write = JsonLines.write

  def write_and_signal(self, step, values):
    write(self, step, values)
    if step == 3:
      signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(JsonLines, "write", write_and_signal)
  config.update(steps=50, save_every=40)
  assert train.run(config, tmp_path) == train.PREEMPTED_EXIT
  saved = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
  assert max(saved) == last_step(tmp_path) == 4
  assert "SIGTERM: step 4 of 50 is saved, the same command continues" in capsys.readouterr().err


def test_sigterm_before_a_step_ends_the_run_at_once_and_says_so(tmp_path, sources):
  def stop(process):
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "lock").exists():
      assert is_there(process) and time.monotonic() < deadline
      time.sleep(0.001)
    os.kill(process, signal.SIGTERM)

  code, _, errors = launch(*command(tmp_path / "run", sources), meanwhile=stop)
  assert code == train.PREEMPTED_EXIT
  assert errors.endswith("nothing to save, the same command starts again\n"), errors


def test_sigterm_is_noticed_while_the_main_thread_compiles():
  """Another call that Python cannot interrupt, of about a minute, stands for the compilation."""
  code = (
    "import hashlib; from mtjax.train.preemption import on_sigterm\n"
    "with on_sigterm():\n"
    "  print('ready', flush=True); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == "ready\n"
  time.sleep(0.2)
  process.send_signal(signal.SIGTERM)
  _, errors = process.communicate(timeout=15)
  assert process.returncode == train.PREEMPTED_EXIT and errors.count("SIGTERM before") == 1


@pytest.mark.slow
def test_killed_five_times_at_random_it_is_the_same_run(tmp_path, sources, undisturbed):
  seed = random.randrange(1 << 30)
  print(f"kills sampled with seed {seed}")
  rng = random.Random(seed)
  for step in sorted(rng.sample(range(1, STEPS - 20), 5)):
    assert stop_at(tmp_path / "run", sources, step, signal.SIGKILL) == -signal.SIGKILL
  finish(tmp_path / "run", sources)
  check_equal(tmp_path / "run", undisturbed)


def test_a_finished_run_is_left_as_it_is(tmp_path, config, capsys):
  assert train.run(config, tmp_path) == 0
  before = (tmp_path / "metrics.jsonl").read_bytes()
  assert "nothing to do" not in capsys.readouterr().err
  assert train.run(config, tmp_path) == 0
  assert "has done all its 6 steps: there is nothing to do" in capsys.readouterr().err
  assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_run_may_be_extended_from_its_stable_phase(tmp_path, config):
  train.run(config, tmp_path / "short")  # 6 steps, the last 2 decay
  config.steps = 9
  with pytest.raises(ValueError, match="step 6 was made under the schedule"):
    train.run(config, tmp_path / "short")
  (tmp_path / "short" / "checkpoints" / "6").rename(tmp_path / "6")
  train.run(config, tmp_path / "short")
  train.run(config, tmp_path / "long")
  assert curve(tmp_path / "short") == curve(tmp_path / "long")


def test_a_workdir_of_another_run_is_refused(tmp_path, config):
  config.steps = 2
  config.decay = 1
  train.run(config, tmp_path)
  for field, value, message in (
    ("seed", 1, "seed is 0 there, 1 here"),
    ("batch", 8, "batch is 4 there, 8 here"),
    ("model.dim", 32, "model.dim is 16 there, 32 here"),
    ("optimizer.name", "adamw", "optimizer.name is 'muon' there, 'adamw' here"),
    ("data.sources", ("builtin:tinyshakespeare",), "texts is '"),
  ):
    other = copy.deepcopy(config)
    other.update_from_flattened_dict({field: value})
    with pytest.raises(ForeignCheckpoint, match=message):
      train.run(other, tmp_path)


def test_training_learns_and_logs_every_step_once(tmp_path, config):
  config.update(steps=30, log_every=1)
  state, params = train.train(config, tmp_path)
  lines = curve(tmp_path)
  assert [line["step"] for line in lines] == list(range(1, 31))
  assert lines[-1]["loss"] < lines[0]["loss"]
  assert int(state.step) == 30 and params is state.ema
