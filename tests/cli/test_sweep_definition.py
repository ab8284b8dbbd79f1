"""What a sweep runs is read and checked as a whole before anything runs."""

import pytest

from mtjax.cli.sweep.combinations import product, zipped
from mtjax.cli.sweep.definition import described, read_sweep
from tests.cli import sweeps
from tests.source import ROOT

TRAIN = """
from mtjax.train.defaults import named

PROGRAM = "train"

def get_config():
  return named("tiny")

def sweep():
  return [SETTINGS]
"""


# The number of settings of each sweep in configs/sweep.
SETTINGS = {"denoise": 32, "denoise_code": 32, "lookup_lengths": 10, "tiny_learning_rates": 2}


def read(tmp_path, text, *, seeds=None, passed=()):
  file = tmp_path / "mine.py"
  file.write_text(text)
  return read_sweep(str(file), seeds=seeds, passed=passed)


def of_train(settings):
  return TRAIN.replace("SETTINGS", f"{{{settings}}}")


def test_product_and_zipped():
  values = {"a": [1, 2], "b": "xy".split("y")[:1] + ["z"]}
  assert product(values) == [
    dict(a=1, b="x"), dict(a=1, b="z"), dict(a=2, b="x"), dict(a=2, b="z")
  ]  # fmt: skip
  assert zipped(values) == [dict(a=1, b="x"), dict(a=2, b="z")]
  with pytest.raises(ValueError, match="as many values for each flag: got {'a': 1, 'b': 2}"):
    zipped(dict(a=[1], b=[1, 2]))
  with pytest.raises(ValueError, match=r"'a' needs a list of values, such as \['xy'\]"):
    product(dict(a="xy"))


def test_seeds_multiply_the_runs_and_flags_are_of_all_runs(tmp_path):
  sweep = read(tmp_path, sweeps.FILE, seeds=2, passed=["--word=a", "--word=b"])
  assert sweep.runs[:3] == (dict(x=1, seed=0), dict(x=1, seed=1), dict(x=2, seed=0))
  assert len(sweep.runs) == 6 and sweep.flags == dict(word=("a", "b"))
  assert described(sweep.runs[1]) == sweep.label(1) == "x=1 seed=1"


def test_a_run_is_called_by_what_differs_between_runs(tmp_path):
  sweep = read(tmp_path, returning('[{"x": 1, "word": "a b"}, {"x": 1, "word": "c", "seed": 2}]'))
  assert [sweep.label(0), sweep.label(1)] == ["word='a b'", "word=c seed=2"]
  assert read(tmp_path, returning('[{"x": 1}]')).label(0) == "x=1"
  assert read(tmp_path, returning("[{}]")).label(0) == "mine"


def test_fields_of_the_config_are_set_in_it_or_per_run(tmp_path):
  text = of_train('"config.optimizer.learning_rate": 1, "config.mesh": [1, 1]')
  passed = ["--config.steps=30", "--config.data.sources=('file:a.txt',)", "--config.tensorboard"]
  sweep = read(tmp_path, text, seeds=1, passed=passed)
  assert sweep.runs == (
    {"config.optimizer.learning_rate": 1, "config.mesh": (1, 1), "config.seed": 0},
  )
  assert sweep.config["steps"] == 30 and sweep.config["tensorboard"] is True
  assert sweep.config["data"]["sources"] == ("file:a.txt",) and not sweep.flags


def returning(value):
  return f'PROGRAM = "sum"\ndef sweep():\n  return {value}'


MISTAKES = {
  "no program": ("def sweep():\n  return [{}]", "which program .* would do, or: train, decode"),
  "program": ('PROGRAM = "dream"', "PROGRAM is 'dream'; "),
  "no sweep": ('PROGRAM = "sum"', r"no function sweep\(\), which returns the settings"),
  "parameters": ('PROGRAM = "sum"\ndef sweep(n): ...', r"sweep\(\) must have no parameters"),
  "one setting": (returning("{}"), r"must return a list of settings, as \[{...}\], not dict"),
  "nothing": (returning("[]"), r"sweep\(\) returns no settings"),
  "no settings": (returning("[1]"), "must return {flag: value} for each run, not 1"),
  "failing": (returning("[1 / 0]"), "failed, line 3: ZeroDivisionError"),
  "same": (returning('[{"x": 1}, {"x": 2}, {"x": 1}]'), "runs 0 and 2 are the same: x=1"),
  "flag": (returning('[{"xs": 1}]'), "run 0: .*sum_program has no flag 'xs'; did you mean x"),
  "kind": (returning('[{"x": 1}, {"x": "one"}]'), "run 1: x=one: "),
  "value": (returning('[{"word": None}]'), "word must be text, a number, .*, got None"),
  "output": (returning('[{"output": "a"}]'), "output is set by the sweep itself"),
  "no config": ('PROGRAM = "train"\ndef sweep():\n  return [{}]', r"no function get_config\(\)"),
  "field": (of_train('"config.batsh": 1'), "run 0: .*no field 'batsh'; did you mean batch"),
  "group": (of_train('"config.optimizer": 1'), "no field 'optimizer'; did you mean optimizer"),
  "field's kind": (of_train('"config.batch": "big"'), "run 0: batch must be of the kind of 4, got"),
  "checked config": (of_train('"config.batch": 0'), "run 0: batch must be at least 1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_file_is_named(tmp_path, name):
  text, message = MISTAKES[name]
  with pytest.raises(ValueError, match=f"config file '.*mine.py'.*{message}"):
    read(tmp_path, text)


@pytest.mark.parametrize(
  ("passed", "message"),
  [
    (["word"], "'word' behind -- is no flag"),
    (["--wort=a"], "no flag 'wort'; did you mean word"),
    (["--x=1"], r"x is set by sweep\(\) and behind -- as well"),
    (["--output=1"], "output is set by the sweep itself"),
  ],
)
def test_a_mistake_behind_the_dashes_is_named(tmp_path, passed, message):
  with pytest.raises(ValueError, match=message):
    read(tmp_path, sweeps.FILE, passed=passed)


def test_a_field_behind_the_dashes_keeps_its_kind(tmp_path):
  with pytest.raises(ValueError, match="steps must be of the kind of 40, got 'many'"):
    read(tmp_path, of_train(""), passed=["--config.steps=many"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweep").glob("*.py")), ids=str)
def test_every_sweep_of_the_project_passes_the_checks(path):
  sweep = read_sweep(str(path), seeds=3, passed=())
  assert len(sweep.runs) == 3 * SETTINGS[path.stem] and sweep.name == path.stem


def test_methods_of_denoising_are_checked_before_anything_runs():
  file = str(ROOT / "configs" / "sweep" / "denoise.py")
  with pytest.raises(ValueError, match="run 0: .*steps must be .* number of blocks, 32"):
    read_sweep(file, seeds=None, passed=["--config.denoise.length=512"])


def test_the_judge_of_decoding_is_checked_before_anything_runs(tmp_path):
  text = (ROOT / "configs" / "sweep" / "denoise.py").read_text()
  assert text.count('judge="target"') == 1
  with pytest.raises(ValueError, match="run 0: judge: there is no model 'targt'; it must be"):
    read(tmp_path, text.replace('judge="target"', 'judge="targt"'))
  file = str(ROOT / "configs" / "sweep" / "lookup_lengths.py")
  with pytest.raises(ValueError, match="py': judge: there is no model 'targt'"):
    read_sweep(file, seeds=None, passed=["--judge=targt"])


def test_seeds_are_given_once(tmp_path):
  text = returning('[{"seed": 1}, {"seed": 2}]')
  assert len(read(tmp_path, text).runs) == 2
  with pytest.raises(ValueError, match="sets seed itself: leave --seeds out"):
    read(tmp_path, text, seeds=2)
