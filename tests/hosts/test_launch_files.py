"""The files of configs/launch that start several processes."""

import os
import re
import shlex
import signal
import subprocess

import pytest
import yaml

from mtjax import hosts, train
from mtjax.cli import config_file, flags
from tests.source import ROOT

LAUNCH = ROOT / "configs/launch"


def codes_of_the_guide(what_to_do):
  """Returns the exit codes after which one has to do that, by the table of the guide."""
  lines = (ROOT / "docs/guides/multi_host.md").read_text().splitlines()
  rows = [re.fullmatch(r"\| ([\d, ]+) \| .* \| (.*) \|", line) for line in lines]
  codes = [row[1].split(", ") for row in rows if row and row[2] == what_to_do]
  return {int(code) for row in codes for code in row}


CONTINUES = codes_of_the_guide("the same command continues")


def test_the_guide_has_the_exit_codes_of_the_launchers():
  signals = {128 + number for number in (signal.SIGABRT, signal.SIGKILL, signal.SIGTERM)}
  assert CONTINUES == {train.PREEMPTED_EXIT, hosts.LOST_EXIT, *signals}
  assert codes_of_the_guide("mend it") == {1, flags.USAGE_EXIT}


def test_the_slurm_script_continues_after_the_codes_of_the_guide():
  text = (LAUNCH / "slurm.sbatch").read_text()
  (codes,) = re.findall(r"\n  ([\d |]+)\)\n    if .* scontrol requeue", text)
  assert {*map(int, codes.split(" | "))} == CONTINUES


def program(folder, name, text):
  path = folder / name
  path.write_text(f"#!/bin/sh\n{text}\n")
  path.chmod(0o755)


@pytest.mark.parametrize(
  ("code", "again"), [(0, False), (1, False), (2, False), (42, True), (43, True), (137, True)]
)
def test_the_slurm_script_runs_again_what_can_continue(tmp_path, code, again):
  program(tmp_path, "srun", f'echo "$@" > {tmp_path}/srun.txt; exit {code}')
  program(tmp_path, "scontrol", f'echo "$@" > {tmp_path}/scontrol.txt')
  path = f"{tmp_path}:{os.environ['PATH']}"
  env = {**os.environ, "PATH": path, "SLURM_JOB_ID": "7"}
  run = subprocess.run(["bash", LAUNCH / "slurm.sbatch", "--config=tiny", "a b"], env=env)
  assert run.returncode == code
  started = (tmp_path / "srun.txt").read_text()
  assert "-m experiments.train --distributed=slurm --config=tiny a b" in started
  asked = tmp_path / "scontrol.txt"
  assert asked.exists() == again
  if again:
    assert asked.read_text() == "requeue 7\n"


@pytest.mark.parametrize(
  ("codes", "code", "again"),
  [
    ((2, 43), 2, False),
    ((43, 1), 1, False),
    ((43, 137), 137, True),
    ((42, 42), 42, True),
    ((0, 0), 0, False),
  ],
)
def test_a_mistake_of_one_task_ends_the_slurm_job(tmp_path, codes, code, again):
  # As srun does: the tasks run beside each other, and the highest exit code is returned.
  tasks = "; ".join(f'SLURM_PROCID={i} "$@"; c{i}=$?' for i in range(2))
  program(tmp_path, "srun", f"shift; {tasks}; if [ $c0 -gt $c1 ]; then exit $c0; fi; exit $c1")
  program(tmp_path, "scontrol", f"touch {tmp_path}/asked")
  program(tmp_path, "own", f"if [ $SLURM_PROCID = 0 ]; then exit {codes[0]}; fi; exit {codes[1]}")
  path = f"{tmp_path}:{os.environ['PATH']}"
  env = {**os.environ, "PATH": path, "SLURM_JOB_ID": "7", "PYTHON": "own"}
  run = subprocess.run(["bash", LAUNCH / "slurm.sbatch", "--config=tiny"], env=env)
  assert run.returncode == code
  assert (tmp_path / "asked").exists() == again


def test_a_task_of_slurm_passes_sigterm_on(tmp_path):
  program(tmp_path, "srun", 'shift; exec "$@"')
  program(tmp_path, "scontrol", f"touch {tmp_path}/asked")
  # It has to end by the signal that reaches the task's shell, its parent.
  saving = "trap 'exit 42' TERM; kill -TERM $PPID; while :; do sleep 0.02; done"
  program(tmp_path, "own", saving)
  path = f"{tmp_path}:{os.environ['PATH']}"
  env = {**os.environ, "PATH": path, "SLURM_JOB_ID": "7", "PYTHON": "own"}
  run = subprocess.run(["bash", LAUNCH / "slurm.sbatch", "--config=tiny"], env=env, timeout=20)
  assert run.returncode == 42
  assert (tmp_path / "asked").exists()


def test_two_local_processes_get_places_of_their_own_and_their_exit_code(tmp_path):
  program(tmp_path, "python", 'echo "$JAX_NUM_CPU_DEVICES $@"; case "$*" in *,2,1*) exit 43;; esac')
  env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PORT": "99"}
  run = subprocess.run(
    ["bash", LAUNCH / "two_processes.sh", "--config=tiny"], env=env, capture_output=True, text=True
  )
  assert run.returncode == 43, run.stderr
  assert "process 1 has ended with exit code 43" in run.stdout
  for index in range(2):
    flag = f"--distributed=localhost:99,2,{index}"
    assert f"[{index}] 2 -m experiments.train {flag} --config=tiny" in run.stdout


def test_the_slurm_script_tries_no_more_than_it_is_told(tmp_path):
  program(tmp_path, "srun", "exit 43")
  program(tmp_path, "scontrol", f"touch {tmp_path}/asked")
  env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
  for tries, again in (("2", False), ("3", True)):
    env |= dict(SLURM_RESTART_COUNT="2", TRIES=tries)
    subprocess.run(["bash", LAUNCH / "slurm.sbatch"], env=env)
    assert (tmp_path / "asked").exists() == again


def flags_of(words):
  """Returns the flags of a command, and checks that a run with them has texts and whole rows."""
  values = dict(word.lstrip("-").split("=", 1) for word in words)
  config = config_file.load_module(str(ROOT / values["config"])).get_config()
  assert config.data.sources
  data, _ = map(int, re.findall(r"\d+", values["config.mesh"]))
  assert int(values["config.batch"]) % data == 0
  return values


def test_the_example_of_the_slurm_script_can_be_trained():
  text = (LAUNCH / "slurm.sbatch").read_text()
  example = text[text.index("sbatch configs/launch") : text.index("# All arguments")]
  words = shlex.split(example.replace("#", " ").replace("\\\n", " "))
  flags_of(words[2:])


@pytest.mark.parametrize("name", ["jobset.yaml", "jobset_tpu.yaml"])
def test_a_manifest_starts_as_many_processes_as_it_says(name):
  jobset = yaml.safe_load((LAUNCH / name).read_text())
  (workers,) = jobset["spec"]["replicatedJobs"]
  job = workers["template"]["spec"]
  assert job["parallelism"] == job["completions"] and job["completionMode"] == "Indexed"
  assert job["backoffLimit"] == 0, "a lost pod must fail the set, which starts all pods again"
  (container,) = job["template"]["spec"]["containers"]
  (script,) = container["args"]
  words = shlex.split(script)
  assert words[:4] == ["exec", "python", "-m", "experiments.train"], "exec: SIGTERM must reach it"
  values = flags_of(words[4:])
  (rule,) = job["podFailurePolicy"]["rules"]
  assert rule["onExitCodes"] == dict(
    containerName=container["name"], operator="NotIn", values=sorted(CONTINUES)
  )
  per_pod = next(n for k, n in container["resources"]["limits"].items() if "/" in k)
  data, model = map(int, re.findall(r"\d+", values["config.mesh"]))
  assert data * model == per_pod * job["completions"]
  if "," in values["distributed"]:
    text = values["distributed"].replace("$JOB_COMPLETION_INDEX", "1")
    place = hosts.HostPlace.parse(text)
    assert place.count == job["completions"] and place.index == 1
    first = f"{jobset['metadata']['name']}-{workers['name']}-0-0.{jobset['metadata']['name']}"
    assert place.address.split(":")[0] == first
  else:
    assert hosts.HostPlace.parse(values["distributed"], {}).environment == "auto"
