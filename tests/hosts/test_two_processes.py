"""Two processes are one: same batches and losses, killed, resumed and moved to other devices.

Processes of their own, two at a time: the first two have two devices each, the next two have one
each, and this one continues what they began on one device alone.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mtjax import train
from mtjax.train.export import load_trained
from tests.forked import launch
from tests.hosts.runs import STEPS, decoded, denoised, filled, run_config
from tests.source import ROOT


def slurm_step(index, port):
  """Returns what Slurm and JAX's own variable say to a task of a step of two."""
  names = dict(JOB_ID=1, STEP_NODELIST="localhost", NTASKS=2, PROCID=index, LOCALID=index)
  slurm = {f"SLURM_{name}": str(value) for name, value in names.items()}
  return slurm | dict(JAX_COORDINATOR_PORT=str(port))


def both(part, folder):
  """Returns (exit code, JSON, standard error, seconds) of both processes of a part."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  begin = time.monotonic()
  processes = [
    subprocess.Popen(
      [sys.executable, "-m", "tests.hosts.worker", part, str(index), str(port), str(folder)],
      cwd=ROOT,
      env={**os.environ, **slurm_step(index, port)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  try:
    ends = [process.communicate(timeout=400) for process in processes]
  finally:
    for process in processes:
      process.kill()
  seconds = time.monotonic() - begin
  out = []
  for process, (text, errors) in zip(processes, ends, strict=True):
    # Gloo prints lines of its own.
    told = [line for line in text.splitlines() if line.startswith("{")]
    assert told, ends[0][1][-3000:] + ends[1][1][-3000:]
    out.append((process.returncode, json.loads(told[0]), errors, seconds))
  return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("hosts")
  (folder / "text.txt").write_text("two processes are one " * 20)
  return folder


@pytest.fixture(scope="module")
def alone(folder):
  """Returns the folder of the same run in this process, on one device."""
  assert train.run(run_config(folder, (1, 1)), folder / "alone") == 0
  return folder / "alone"


@pytest.fixture(scope="module")
def first(folder):
  return both("first", folder)


@pytest.fixture(scope="module")
def second(folder, first):
  return both("second", folder)


@pytest.fixture(scope="module")
def without_process_0():
  code, shown, errors = launch("tests.hosts.lost_first")
  assert code == 0, errors[-3000:]
  return json.loads(shown)


def metrics(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir):
  return {line["step"]: line["loss"] for line in metrics(workdir)}


def check_equal(workdir, alone):
  found, expected = losses(workdir), losses(alone)
  assert list(found) == list(range(1, STEPS + 1))
  np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)
  scores = [metrics(folder)[-1]["bits_per_byte/own"] for folder in (workdir, alone)]
  np.testing.assert_allclose(*scores, rtol=1e-5)


def check_close(found, expected):
  """All values are equal, but for those of `close`, which are so up to rounding."""
  np.testing.assert_allclose(found["close"], expected["close"], rtol=1e-4, atol=1e-6)
  assert found | dict(close=expected["close"]) == expected


def test_each_process_feeds_the_rows_of_its_devices(first):
  (_, zero, *_), (_, one, *_) = first
  assert zero["mesh"] == one["mesh"] == [0, 0, 1, 1]
  assert zero["rows"] == dict(split=[0, 1], shared=[0, 1, 2, 3])
  assert one["rows"] == dict(split=[2, 3], shared=[0, 1, 2, 3])


def test_a_mesh_as_text_is_of_one_process_and_the_message_says_what_to_give(first):
  for _, seen, *_ in first:
    said = seen["mesh_as_text"]
    assert "data:4,model:1,sequence:1 needs 4 devices, but this process has 2" in said
    assert "give the mesh mtjax.sharding.make_mesh(data=4), whose sizes must multiply to 4" in said
    assert "jax_num_cpu_devices" not in said


def test_each_says_which_it_is(first, second):
  for index, (_, _, errors, _) in enumerate(second):
    assert f"process {index} of 2 (slurm): 1 devices here (cpu), 2 in all" in errors
  for index, (_, _, errors, _) in enumerate(first):
    assert f"process {index} of 2 (coordinator localhost:" in errors
    assert "2 devices here (cpu), 4 in all" in errors


def test_what_differs_is_refused_by_both(first):
  for index, (_, seen, *_) in enumerate(first):
    assert seen["gathered"] == ["", "x" * 5000]
    assert "process 1 has another software than process 0: a.b is 1 there, 0 in" in seen["unequal"]
    assert "has another config than process 0: seed is 1 there, 0 in" in seen["other_config"]
    assert "has 2 of the 4 devices of 2 processes" in seen["small_mesh"]
    own = "there is no file x"
    assert seen["failed"] == (own if index else f"process 1 failed while reading: {own}")


def test_texts_and_files_that_differ_are_refused_with_both_hashes(first):
  for _, seen, *_ in first:
    for name, what in (
      ("other_prompts", "prompts"),
      ("other_texts", "texts of 'own' to score"),
      ("other_files", "files"),
      ("other_init", "files of init '~/counts.json'"),
      ("other_adapters", "files of the adapters '~'"),
    ):
      assert f"process 1 has other {what} than process 0: their hash is " in seen[name]
      one, zero = re.search(r"is (\w+) in process 1, (\w+) in process 0", seen[name]).groups()
      assert one != zero


def test_files_that_a_config_names_are_compared(first):
  for _, seen, *_ in first:
    assert (
      "process 1 has another file of the config than process 0: ~/counts.json is '"
      in (seen["named_files"])
    )


def test_a_store_on_the_host_is_refused(first):
  for _, seen, *_ in first:
    assert (
      "the mesh has devices of 2 processes, of which each would keep its own" in seen["on_host"]
    )


def test_two_processes_decode_and_score_as_one(first):
  expected = decoded()
  assert sum(expected["counters"]["accepted_at_depth"]) > 0
  assert any(tree and len(tree[0]) > 1 for tree in expected["trees"])
  for _, seen, *_ in first:
    check_close(seen["decoded"], expected)


def test_two_processes_plan_by_the_clock_of_the_first_one_which_keeps_the_plan(first, folder):
  (_, zero, *_), (_, one, *_) = first
  assert zero["planned"] == one["planned"]
  found = zero["planned"]
  assert found["measured"] == [True, False, True]
  assert {one["drafter"] for one in found["plan"]["ranking"]} == {None, "draft"}
  assert found["own_weights"], "what the last process has of the weights counts"
  plain, drafted = found["texts"]
  assert plain == drafted and all(plain)
  assert found["of"]["mesh"] == "data:1,model:4,sequence:1 of 2 processes"
  kinds = sorted(path.name.split("-")[0] for path in (folder / "plans-0").iterdir())
  assert kinds == ["acceptance", "latency", "plan"]
  assert not (folder / "plans-1").exists()
  ((*_, said, _), (*_, nothing, _)) = first
  assert "mtjax: auto, batch 1: " in said and "mtjax: auto" not in nothing


def test_two_processes_fill_as_one(first):
  expected = filled()
  assert sum(map(sum, expected["drafted"])) > 0
  for _, seen, *_ in first:
    check_close(seen["filled"], expected)


def test_two_processes_denoise_as_one_and_the_first_writes_the_files(first, folder):
  (_, zero, *_), (_, one, *_) = first
  assert zero["denoised"] == denoised(folder / "denoised")
  assert one["denoised"] is None
  pages = [folder / f"denoised{end}.html" for end in ("", "-0")]
  assert pages[0].read_text() == pages[1].read_text()


def test_arrays_that_one_process_cannot_reach_are_refused_by_both(first):
  for _, seen, *_ in first:
    assert "has 2 of the 4 devices of 2 processes" in seen["part_of_mesh"]
    assert "the parameters are spread over the devices of 2 processes: give mesh=" in seen["spread"]


def test_folders_that_are_not_shared_are_refused_by_both(first):
  for _, seen, *_ in first:
    assert (
      "every process needs the same one, on a file system that all of them share"
      in (seen["not_shared"])
    )


def test_a_killed_process_ends_the_other_at_once_with_what_to_do(first):
  (code, _, errors, _), (killed, *_) = first
  assert killed == -signal.SIGKILL
  assert code == 43, errors[-3000:]
  last = errors.strip().splitlines()[-1]
  assert last.startswith("mtjax: another process of this job has ended")
  assert last.endswith("a training run continues from its last checkpoint")


def test_process_0_alone_writes_lines(first):
  (*_, zero, _), (*_, one, _) = first
  assert "step 4/6  loss" in zero and "parameters, from step 0" in zero
  assert "step" not in one and "parameters" not in one


def test_a_killed_run_ends_on_half_the_devices_as_it_does_undisturbed(second, folder, alone):
  (_, zero, errors, _), (_, one, *_) = second
  assert zero["resumed"] == one["resumed"] == 0
  assert "from step 4 to 6" in errors, "it lost a saved step"
  check_equal(folder / "run", alone)


def test_the_rows_that_a_run_scores_are_split_over_its_devices(second):
  for _, seen, *_ in second:
    split, places = seen["scored"]
    assert split, places


def test_sigterm_in_one_process_saves_all_and_one_process_continues(second, folder, alone):
  (_, zero, errors, _), (_, one, *_) = second
  assert zero["terminated"] == one["terminated"] == train.PREEMPTED_EXIT
  (saved,) = zero["steps"]
  assert f"SIGTERM: step {saved} of 2000 is saved" in errors
  config = run_config(folder, (1, 1))
  config.steps = saved + 1
  assert train.run(config, folder / "terminated") == 0
  np.testing.assert_allclose(losses(folder / "terminated")[2], losses(alone)[2], rtol=1e-5)


def test_a_silent_end_is_noticed_within_the_heartbeats(second):
  (code, _, errors, _), (killed, *_) = second
  assert killed == -signal.SIGKILL
  assert code == 43, errors[-3000:]
  assert "another process of this job has ended, or gave no sign of life for 3 s" in errors


@pytest.mark.parametrize(("case", "message"), [
  ("computes", "another process of this job has ended or does not answer"),
  ("waits", "when another process of this job has ended, or gave no sign of life for 2 s"),
])  # fmt: skip
def test_a_killed_process_0_ends_the_other_in_bounded_time_with_what_to_do(
  without_process_0, case, message
):
  found = without_process_0[case]
  assert found["killed"] == -signal.SIGKILL
  assert found["code"] == 43, found["errors"][-3000:]
  assert found["seconds"] < 20
  last = found["errors"].strip().splitlines()[-1]
  assert message in last and last.endswith("continues from its last checkpoint")


def test_a_damaged_part_of_two_processes_is_found_by_one(second, folder, tmp_path):
  del second
  shutil.copytree(folder / "run", tmp_path / "run")
  shutil.rmtree(tmp_path / "run/checkpoints/6")  # no array of it was spread over processes
  assert load_trained(tmp_path / "run")[1] == 4
  manifest = tmp_path / "run/checkpoints/4/manifest/metadata"
  record = json.loads(manifest.read_text())
  name, sums = next((k, v) for k, v in record["arrays"].items() if v["crc"] is None)
  sums["sum"] ^= 1
  manifest.write_text(json.dumps(record))
  with pytest.warns(UserWarning, match=f"{name} is not what was saved"):
    assert load_trained(tmp_path / "run")[1] == 2
