"""Sweeps as users run them: what they leave, and how they continue, fail and refuse."""

import dataclasses
import json
import signal
import sys

import pytest
from rich.console import Console

from mtjax.cli.sweep import launcher
from mtjax.cli.sweep.display import RunTable
from mtjax.cli.sweep.folder import FINISHED, State, existing
from mtjax.cli.sweep.programs import PROGRAMS
from tests.cli.sweeps import FILE, launch, started, wait_for
from tests.evaluate.pages import Reader


def rows(folder):
  return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_sweep_leaves_lines_a_table_and_a_plot(tmp_path, config, capsys):
  pytest.importorskip("matplotlib", reason="pip install 'mtjax[viz]'")
  folder = tmp_path / "runs"
  page = folder / "page.html"
  assert launch(config, f"--results={folder}", "--seeds=2", "--workers=3", f"--html={page}") == 0
  out, errors = capsys.readouterr()
  found = rows(folder)
  assert [row["metrics"]["sum"] for row in found] == [1, 2, 2, 3, 3, 4]
  assert [row["seed"] for row in found] == [0, 1] * 3
  assert found[2]["settings"] == dict(x=2) and found[2]["log"] == "runs/002/log.txt"
  assert {row["state"] for row in found} == {FINISHED}
  assert all(row["seconds"] > 0 and row["attempts"] == 1 for row in found)
  # The mean of 1 and 2, and t = 12.7062 times their standard deviation over the root of 2.
  assert "| 1 | 2 | 1.5 ± 6.4 |" in out and (folder / "table.md").read_text() == out
  assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
  shown = Reader(page.read_text())
  assert ["1", "2", "1.5 ± 6.4"] == [text for _, text in shown.all("td")][:3]
  assert len(shown.all("img")) == 1 and "6 of 6" in shown.all("main")[0][1]
  assert "run 5, x=3 seed=1: finished after" in errors
  before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")}
  assert launch(config, f"--results={folder}", "--seeds=2") == 0
  assert "6 runs, 6 of them finished before" in capsys.readouterr().err
  assert before == {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")}


def test_a_run_that_fails_is_shown_named_and_run_again(tmp_path, capsys):
  file = tmp_path / "numbers.py"
  file.write_text(FILE.replace("[1, 2, 3]", "[1, 13, 3]"))
  settings = (f"--config={file}", f"--results={tmp_path / 'runs'}", "--metrics=sum,wo*")
  assert launch(*settings) == 1
  out, errors = capsys.readouterr()
  assert "run 1 failed (x=13), exit code 1:" in errors and "  thirteen is no number" in errors
  assert errors.splitlines()[-1].startswith("mtjax: 1 of 3 runs have not finished: 1 (failed)")
  assert "| 13 | 0 of 1 | - | - |" in out and "| 3 | 1 | 3 | 0 |" in out
  assert launch(*settings) == 1
  assert [row["attempts"] for row in rows(tmp_path / "runs")] == [1, 2, 1]
  with pytest.raises(ValueError, match="no metric is called 'pro.*'; the runs have: sum, words"):
    launch(*settings[:-1], "--metrics=pro*")


def test_a_killed_sweep_continues_and_repeats_nothing_that_finished(tmp_path, config):
  """The launcher is killed outright, so the run that it had started goes on without it."""
  folder, hold, ran = tmp_path / "runs", tmp_path / "hold-2", tmp_path / "ran"
  hold.touch()
  command = (config, f"--results={folder}", "--", f"--scratch={tmp_path}")
  first = started(tmp_path, *command)
  wait_for(lambda: ran.exists() and ran.read_text() == "1\n2\n")
  with pytest.raises(ValueError, match=f"{folder}' is in use by process {first.pid} .*one sweep"):
    launch(*command)
  first.kill()
  first.communicate()
  assert [existing(folder).state(i).state for i in range(3)] == ["finished", "running", "waiting"]
  assert [row["state"] for row in rows(folder)] == ["finished", "waiting", "waiting"]
  second = started(tmp_path, *command)
  lines = []
  while not lines or "waiting" not in lines[-1]:
    lines.append(second.stderr.readline())
    assert lines[-1], lines
  assert "run 1, x=2: waiting, as the folder" in lines[-1] and "in use by process" in lines[-1]
  assert ran.read_text() == "1\n2\n"
  hold.unlink()
  _, errors = second.communicate(timeout=60)
  assert second.returncode == 0, errors
  assert ran.read_text() == "1\n2\n2\n3\n"
  assert [row["metrics"]["sum"] for row in rows(folder)] == [1, 2, 3]
  assert [row["attempts"] for row in rows(folder)] == [1, 2, 1]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_runs_and_leaves_whole_files(tmp_path, config, sent, code):
  folder, page = tmp_path / "runs", tmp_path / "page.html"
  (tmp_path / "hold-2").touch()
  command = (config, f"--results={folder}", "--", f"--scratch={tmp_path}")
  process = started(tmp_path, f"--html={page}", *command)
  wait_for(lambda: (tmp_path / "ran").exists() and "2" in (tmp_path / "ran").read_text())
  process.send_signal(sent)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == code, errors
  assert "Traceback" not in errors
  assert [row["state"] for row in rows(folder)] == ["finished", "stopped", "waiting"]
  assert not [path for path in folder.rglob("*") if "new" in path.name or path.name == "lock"]
  assert "1 of 3" in Reader(page.read_text()).all("main")[0][1]
  (tmp_path / "hold-2").unlink()
  assert launch(*command) == 0
  assert [row["attempts"] for row in rows(folder)] == [1, 2, 1]


def test_to_know_the_flags_of_a_program_changes_nothing_for_signals(monkeypatch):
  """Or SIGTERM would end the launcher as it ends a training run, without its runs."""
  for module in ("mtjax.cli.early_sigterm", "mtjax.cli.train"):
    monkeypatch.delitem(sys.modules, module, raising=False)
  before = signal.getsignal(signal.SIGTERM)
  assert "workdir" in PROGRAMS["train"].flags()
  assert signal.getsignal(signal.SIGTERM) is before


def test_another_sweep_in_the_folder_is_refused_with_what_differs(tmp_path, config):
  results = f"--results={tmp_path / 'runs'}"
  assert launch(config, results, "--", "--word=a") == 0
  with pytest.raises(ValueError, match="has begun in .*: --word was 'a' and is 'b'. Give another"):
    launch(config, results, "--", "--word=b")
  # Each of another size: Python does not read a file again that has the second and the size it had.
  (tmp_path / "numbers.py").write_text(FILE.replace("[1, 2, 3]", "[2, 1, 5,]"))
  with pytest.raises(ValueError, match="it had the run x=3; the run x=5 is new. Give"):
    launch(config, results, "--", "--word=a")
  (tmp_path / "numbers.py").write_text(FILE.replace("[1, 2, 3]", "[2, 1, 3, ]"))
  with pytest.raises(ValueError, match="its runs had another order"):
    launch(config, results, "--", "--word=a")
  (tmp_path / "notes.txt").touch()
  with pytest.raises(ValueError, match="holds files of something else, such as 'notes.txt'"):
    launch(config, f"--results={tmp_path}")


def test_a_changed_field_of_the_config_is_named(tmp_path):
  file = tmp_path / "train.py"
  file.write_text(
    'from mtjax.train.defaults import named\nPROGRAM = "train"\n'
    "def get_config():\n  return named('tiny')\ndef sweep():\n  return [{}]\n"
  )
  command = (f"--config={file}", f"--results={tmp_path / 'runs'}", "--launch=slurm")
  assert launch(*command, "--", "--config.steps=30") == 0
  with pytest.raises(ValueError, match="config.steps was 30 and is 40. Give another --results"):
    launch(*command)


def test_fields_of_the_config_are_flags_of_the_program():
  argv = ["sweep", "--seeds=2", "--config=a.py", "--config.b=1", "--", "--c"]
  own, passed = launcher._split(argv)
  assert own == ["sweep", "--seeds=2", "--config=a.py"] and passed == ["--config.b=1", "--c"]


def test_a_run_that_leaves_no_metrics_has_failed(tmp_path, config, monkeypatch, capsys):
  def read(path):
    raise KeyError("counters")

  monkeypatch.setitem(PROGRAMS, "sum", dataclasses.replace(PROGRAMS["sum"], read=read))
  assert launch(config, f"--results={tmp_path / 'runs'}", "--workers=3") == 1
  assert "it ended well, but left no metrics: KeyError: 'counters'" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((), "--results is missing"),
    (("--results=RUNS",), "--config is missing"),
    (("--results=RUNS", "--collect"), "no sweep has begun in .*: it has no sweep.json"),
    (("--results=RUNS", "--run=1"), "no sweep has begun"),
    (("--results=RUNS", "--run=1", "--seeds=2"), "with --run, --seeds would do nothing"),
    (("--results=RUNS", "--collect", "--", "--x=2"), "with --collect, --x=2 would do nothing"),
  ],
)
def test_a_mistake_in_the_command_is_named(tmp_path, arguments, message):
  with pytest.raises(ValueError, match=message):
    launch(*(argument.replace("RUNS", str(tmp_path / "runs")) for argument in arguments))


def test_the_table_of_a_terminal_has_a_line_per_run(tmp_path, config, monkeypatch):
  assert launch(config, f"--results={tmp_path / 'runs'}") == 0
  display = RunTable(existing(tmp_path / "runs"))
  try:
    display.update({1: 12.0})
    display.ended(2, State("failed", 1, 1, 3.0))
    console = Console(record=True, width=100, file=sys.stderr)
    console.print(display.table())
  finally:
    display.close()
  lines = console.export_text().splitlines()
  assert "numbers: 2 of 3 runs finished" in lines[0]
  text = {line.split()[1]: line for line in lines if "x=" in line}
  assert "finished" in text["0"] and "sum 1" in text["0"]
  assert "running" in text["1"] and "12 s" in text["1"]
  assert "failed" in text["2"] and "3 s" in text["2"] and "exit code 1" in text["2"]
