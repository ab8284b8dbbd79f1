"""A long run reports its progress on stderr, and its JSON file is complete at any moment."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest

from mtjax.cli import decode
from mtjax.cli.running import TERMINATED_EXIT, progress, results_file, seldom
from mtjax.decode.method import Autoregressive
from mtjax.report.comparison import Contender, compare
from mtjax.text import TextModel
from tests.draft.drafters import PARAMS, TARGET
from tests.draft.letters import Letters
from tests.source import ROOT

SYSTEMS = ("one", "two", "three")


def measured(write, *, fails="two"):
  results = {}
  for name in SYSTEMS:
    if name == fails:
      raise RuntimeError(f"{name} failed")
    results[name] = 1.5
    write(dict(results=results))


def test_what_was_measured_before_an_exception_is_kept(tmp_path, capsys):
  path = tmp_path / "run.json"
  with pytest.raises(RuntimeError, match="two failed"), results_file(str(path)) as write:
    measured(write)
  assert json.loads(path.read_text()) == dict(complete=False, results=dict(one=1.5))
  assert [file.name for file in tmp_path.iterdir()] == ["run.json"], "no other file stays"
  assert f"{path} holds what was finished before this" in capsys.readouterr().err


def test_a_run_that_ends_is_complete(tmp_path):
  path = tmp_path / "run.json"
  seen = []
  with results_file(str(path)) as write:
    measured(lambda record: (write(record), seen.append(json.loads(path.read_text()))), fails=None)
  assert [len(one["results"]) for one in seen] == [1, 2, 3]
  assert not any(one["complete"] for one in seen)
  assert json.loads(path.read_text()) == dict(complete=True, results=dict.fromkeys(SYSTEMS, 1.5))


def test_a_record_that_cannot_be_written_leaves_the_one_before(tmp_path):
  path = tmp_path / "run.json"
  with pytest.raises(TypeError), results_file(str(path)) as write:
    write(dict(results=1))
    write(dict(results=object()))
  assert json.loads(path.read_text()) == dict(complete=False, results=1)
  assert len(list(tmp_path.iterdir())) == 1


def test_nothing_is_written_before_a_record_nor_without_a_file(tmp_path):
  path = tmp_path / "run.json"
  path.write_text("of an earlier run")
  with pytest.raises(RuntimeError), results_file(str(path)):
    raise RuntimeError
  assert path.read_text() == "of an earlier run"
  with results_file(None) as write:
    write(dict(results=1))


def test_what_a_link_points_to_is_written_and_a_pipe_gets_the_end_alone(tmp_path):
  path, link, pipe = (tmp_path / name for name in ("run.json", "link", "pipe"))
  link.symlink_to(path)
  with results_file(str(link)) as write:
    write(dict(results=1))
  assert link.is_symlink() and json.loads(path.read_text())["complete"]
  os.mkfifo(pipe)
  with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
    with results_file(str(pipe)) as write:
      write(dict(results=1))
      write(dict(results=2))
    assert json.loads(reader.stdout.read()) == dict(complete=True, results=2)


@pytest.mark.parametrize(
  ("sent", "code"), [(signal.SIGTERM, TERMINATED_EXIT), (signal.SIGINT, 130)]
)
def test_a_signal_leaves_what_was_measured_and_clears_the_rest(tmp_path, sent, code):
  path, folder = tmp_path / "run.json", tmp_path / "weights"
  program = f"""
import sys, tempfile, time
from mtjax.cli import flags
from mtjax.cli.running import results_file

def run():
  with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}), results_file({str(path)!r}) as write:
    write(dict(results=[1]))
    print("measured", flush=True)
    time.sleep(60)

flags.main(run)
"""
  process = subprocess.Popen(
    [sys.executable, "-c", program],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "measured\n"
  process.send_signal(sent)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == code, errors
  assert "Traceback" not in errors and "holds what was finished" in errors
  assert json.loads(path.read_text()) == dict(complete=False, results=[1])
  assert not folder.exists() and [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_progress_is_a_line_of_stderr(capsys):
  progress("compiling lookup, 2 of 5")
  out, errors = capsys.readouterr()
  assert (out, errors) == ("", "compiling lookup, 2 of 5\n")


def test_small_steps_are_reported_seldom():
  now, reports = [0.0], []
  report = seldom(reports.append, seconds=10, clock=lambda: now[0])
  for second in range(25):
    now[0] = float(second)
    report(f"row {second}")
  assert reports == ["row 0", "row 10", "row 20"]


def contenders(*names):
  return {name: Contender(Autoregressive(), None, "lossless") for name in names}


TEXT = TextModel(TARGET, PARAMS, Letters("abcdefghijkl"))


def test_a_comparison_names_what_runs():
  reports = []
  compared = compare(
    TEXT, ["abc", "abd"], contenders("ar", "again"), max_tokens=2, progress=reports.append
  )
  assert [len(results) for results in compared] == [1, 2]
  assert reports == [
    "compiling ar, 1 of 2: prompt 1 of 2",
    "measuring ar, 1 of 2: prompt 2 of 2",
    "compiling again, 2 of 2: prompt 1 of 2",
    "measuring again, 2 of 2: prompt 2 of 2",
  ]


class _Broken(Autoregressive):
  def check(self, model):
    raise ValueError("it does not run")


def test_a_comparison_keeps_the_methods_before_the_one_that_fails(tmp_path, monkeypatch):
  three = contenders("ar", "broken", "third")
  three["broken"] = Contender(_Broken(), None, "lossless")
  monkeypatch.setattr(decode.comparison, "contenders", lambda *arguments: three)
  monkeypatch.setattr(decode, "run_settings", lambda config: dict(max_tokens=2))
  decode.VALUES.mark_as_parsed()
  path = tmp_path / "run.json"
  with pytest.raises(ValueError, match="does not run"), results_file(str(path)) as write:
    decode._compare({}, TEXT, ["abc"], decode._Outputs(write, write))
  record = json.loads(path.read_text())
  assert not record["complete"] and [one["name"] for one in record["compared"]] == ["ar"]
  assert len(record["compared"][0]["runs"][0]["tokens"][0]) == 2


def test_rounds_of_a_comparison_are_interleaved_and_begin_without_memory():
  reports, renewed = [], []
  two = contenders("ar", "learns")
  two["learns"] = dataclasses.replace(two["learns"], renew=lambda: renewed.append("learns"))
  settings = dict(rounds=3, max_tokens=2, progress=reports.append)
  *_, results = compare(TEXT, ["abc", "abd"], two, **settings)
  names = [report.split(",")[0] for report in reports if "prompt 1" in report]
  assert names == ["compiling ar", "compiling learns", *["measuring ar", "measuring learns"] * 2]
  assert renewed == ["learns"] * 2
  for result in results:
    assert [len(seconds) for seconds in result.seconds] == [2, 2, 2] and len(result.runs) == 2
  slow = dataclasses.replace(results[0], seconds=[[3.0, 1.0], [1.0, 1.0], [9.0, 1.0]])
  fast = dataclasses.replace(results[0], seconds=[[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
  assert fast.speed_up(slow) == 2.0, "the median of 2, 2 and 5"
