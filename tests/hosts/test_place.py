"""What --distributed may say, and how a job that cannot begin says why."""

import os
import socket
import subprocess
import sys

import jax
import pytest
from absl import flags

from mtjax import hosts
from mtjax.cli import running, train
from mtjax.cli.hosts import once
from mtjax.cli.hosts.flags import HostFlags
from mtjax.hosts import ending, limits
from tests.forked import launch
from tests.source import ROOT

SLURM = dict.fromkeys(
  ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"), "1"
)


def test_a_place_is_an_environment_or_an_address():
  parse = hosts.HostPlace.parse
  assert parse("auto", {}) == hosts.HostPlace(environment="auto")
  assert parse("slurm", SLURM) == hosts.HostPlace(environment="slurm")
  assert parse("[::1]:80,4,3") == hosts.HostPlace(address="[::1]:80", count=4, index=3)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "is not HOST:PORT,COUNT,INDEX, such as"),
    ("slrum", "is not one of auto, slurm, ompi, mpi4py"),
    ("localhost,2,0", "is not HOST:PORT,COUNT,INDEX"),
    ("localhost:80,2", "the number of processes, and which of them this one is"),
    ("localhost:80,2,x", "is not HOST:PORT,COUNT,INDEX"),
    ("localhost:80,2,-1", "is not HOST:PORT,COUNT,INDEX"),
    ("localhost:80,0,0", "the number of processes is at least 1, got 0"),
    ("localhost:80,2,2", "the index of a process is from 0 to COUNT - 1 = 1, got 2"),
    ("localhost:99999,2,0", "a port is from 1 to 65535, got 99999"),
  ],
)
def test_a_half_given_place_is_refused(text, message):
  with pytest.raises(ValueError, match=message):
    hosts.HostPlace.parse(text, {})


@pytest.mark.parametrize("name", ["slurm", "auto"])
def test_a_batch_script_without_srun_is_refused(name):
  with pytest.raises(ValueError, match="lacks SLURM_STEP_NODELIST, .* with srun"):
    hosts.HostPlace.parse(name, dict(SLURM_JOB_ID="1", SLURM_NTASKS="2", SLURM_PROCID="0",
                                 SLURM_LOCALID="0"))  # fmt: skip


def test_a_port_that_is_taken_is_named():
  with socket.socket() as other:
    other.bind(("", 0))
    other.listen()
    port = other.getsockname()[1]
    with pytest.raises(OSError, match=f"cannot listen at port {port} .*Choose another port"):
      hosts.meet(hosts.HostPlace(address=f"localhost:{port}", count=2, index=0))


def test_a_coordinator_that_is_not_there_is_named_in_bounded_time():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
    with pytest.raises(OSError, match=f"nobody answers at {address} for 1 s .*start process 0"):
      hosts.meet(hosts.HostPlace(address=address, count=2, index=1), wait=1)


def test_help_has_the_default_limits():
  for name, limit in (("heartbeat", limits.HEARTBEAT_SECONDS), ("wait", limits.WAIT_SECONDS)):
    assert f"Default: {limit}." in train.VALUES[f"{name}_seconds"].help


@pytest.mark.parametrize(
  ("module", "given", "message"),
  [
    ("decode", ["--config=ar", "--chat"], "--chat runs in one process: leave --distributed out"),
    ("decode", ["--config=ar", "--compare=ar"], "--compare runs in one process"),
    ("evaluate", ["--task=gsm8k"], "--task runs in one process"),
  ],
)
def test_what_runs_in_one_process_alone_is_refused(module, given, message):
  code, _, errors = launch(f"mtjax.cli.{module}", *given, "--distributed=localhost:1,2,0")
  assert code == 2 and message in errors and errors.count("\n") == 1, errors


def test_processes_other_than_the_first_print_and_write_nothing(tmp_path, capsys):
  with once.silent(), running.results_file(str(tmp_path / "out.json")) as write:
    write(dict(a=1))
    print("text")
    running.progress("compiling")
  assert not any(capsys.readouterr()) and not any(tmp_path.iterdir())
  assert once.writes_here()


def test_processes_compare_the_flags_of_all_parts_of_a_launcher(monkeypatch):
  own, part, compared = flags.FlagValues(), flags.FlagValues(), []
  its = HostFlags.define(own)
  flags.DEFINE_integer("seeds", 3, "Of a part.", flag_values=part)
  own(["launcher", "--distributed=localhost:1,2,0"])
  part(["launcher"])
  monkeypatch.setattr(hosts, "meet", lambda *_, **__: None)
  monkeypatch.setattr(hosts, "check_equal", lambda _, said: compared.append(said))
  with its.joined(None, own, part):
    pass
  assert compared == [dict(seeds=3)]


def test_limits_below_a_second_are_refused():
  with pytest.raises(ValueError, match="at least 1 second, got 0 and 120"):
    hosts.meet(hosts.HostPlace(address="localhost:1", count=1), heartbeat=0)


def test_nothing_happens_with_one_process(tmp_path):
  assert hosts.count() == 1 and hosts.is_first() and hosts.gather("x") == ["x"]
  hosts.check_equal("config", dict(a=1))
  with pytest.raises(KeyError), hosts.together("reading"):
    raise KeyError


@pytest.mark.parametrize(
  ("error", "code", "message"),
  [
    (OSError(28, "No space left on device"), 2, "No space left on device"),
    (jax.errors.JaxRuntimeError("NCCL operation: remote process exited"), 43, "has ended or does"),
    (ValueError("UNKNOWN: Gloo AllGather failed: Connection reset"), 43, "has ended or does"),
    (ValueError("heartbeat must be at least 1 second"), 2, "heartbeat must be"),
    (RuntimeError("something else"), 1, "ends with the error above"),
  ],
)
def test_an_error_of_one_process_of_several_ends_it_at_once(
  monkeypatch, capsys, error, code, message
):
  ended = []
  monkeypatch.setattr(ending, "count", lambda: 2)
  monkeypatch.setattr(ending.os, "_exit", ended.append)
  with hosts.ends_together():
    raise error
  assert ended == [code] and message in capsys.readouterr().err


def test_a_process_that_nobody_joins_says_so():
  code = (
    "from mtjax import hosts\n"
    "import socket; s = socket.socket(); s.bind(('', 0)); port = s.getsockname()[1]; s.close()\n"
    "hosts.meet(hosts.HostPlace.parse(f'localhost:{port},2,0'), wait=1)"
  )
  run = subprocess.run(
    [sys.executable, "-c", code],
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert run.returncode == hosts.LOST_EXIT, run.stderr[-2000:]
  assert (
    "mtjax: the processes of this job did not all meet within 1 s. Start them all" in run.stderr
  )


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (["--heartbeat_seconds=9"], "without --distributed, --heartbeat_seconds would do nothing"),
    (["--distributed=slrum"], "--distributed='slrum' is not one of auto, slurm"),
    (["--distributed=ompi"], "--distributed=ompi: the environment does not say which process"),
  ],
)
def test_the_launcher_refuses_in_one_line(tmp_path, given, message):
  workdir = f"--workdir={tmp_path / 'run'}"
  code, _, errors = launch("mtjax.cli.train", "--config=tiny", workdir, *given)
  assert code == 2 and message in errors and errors.count("\n") == 1, errors
  assert not (tmp_path / "run").exists()
