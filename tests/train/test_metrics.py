"""metrics.jsonl after a crash, and the line that a person reads."""

import json
import sys

import pytest

from mtjax.train.monitor.metrics import JsonLines, Speed, TensorBoard
from mtjax.train.monitor.progress import describe


def steps(path):
  return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_past_the_restored_step_are_dropped(tmp_path):
  path = tmp_path / "m.jsonl"
  sink = JsonLines(path, step=0)
  for step in (1, 2, 3, 4):
    sink.write(step, dict(loss=1.0))
  sink.close()
  sink = JsonLines(path, step=2)
  sink.write(3, dict(loss=2.0))
  sink.close()
  assert steps(path) == [1, 2, 3]


def test_a_line_cut_short_is_dropped(tmp_path):
  path = tmp_path / "m.jsonl"
  path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
  JsonLines(path, step=5).close()
  assert steps(path) == [1]


def test_a_line_is_in_the_file_when_write_returns(tmp_path):
  sink = JsonLines(tmp_path / "m.jsonl", step=0)
  sink.write(1, dict(loss=1.0))
  assert steps(tmp_path / "m.jsonl") == [1]
  sink.close()


def test_speed_leaves_out_the_step_that_compiles(monkeypatch):
  now = iter([100.0, 102.0])
  monkeypatch.setattr("time.monotonic", lambda: next(now))
  speed = Speed(steps=11)
  assert speed.update(1, 1000) == {}
  assert speed.update(3, 1000) == dict(tokens_per_second=500.0, eta_seconds=8.0)


def test_a_line_for_people():
  values = {"loss": 3.14159, "tokens_per_second": 1234.5, "eta_seconds": 3700.0}
  values["bits_per_byte/prose"] = 1.5
  assert describe(values) == "loss 3.142  bits/byte prose 1.500  1,234 tokens/s  1 h 01 min left"


def test_tensorboard_files_are_written(tmp_path):
  sink = TensorBoard(tmp_path / "tb", step=0)
  sink.write(1, dict(loss=1.0))
  sink.close()
  (events,) = (tmp_path / "tb").glob("events.out.tfevents.*")
  assert b"loss" in events.read_bytes()


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  with pytest.raises(ImportError, match=r"pip install mtjax\[tb\]"):
    TensorBoard(tmp_path, step=0)
