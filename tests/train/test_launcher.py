"""Mistakes in the command of a training run: one line, exit code 2."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from mtjax.train import config as config_lib
from mtjax.train import train
from tests import forked

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "--config=configs/train/tiny.py"


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((CONFIG, "--config.model.dmi=3"), "did you mean model.dim"),
    ((CONFIG, "--config.model.dim=abc"), "model.dim=abc: must be a whole number, got 'abc'"),
    ((CONFIG,), "--workdir is missing"),
    ((CONFIG, "--workdir=w", "--config.data.sources=()"), "data.sources is empty"),
  ],
)
def test_a_mistake_costs_one_line(tmp_path, arguments, message):
  flags = [a.replace("=w", f"={tmp_path}") for a in arguments]
  code, _, errors = forked.launch("experiments.train", *flags)
  assert code == 2 and message in errors
  lines = [line for line in errors.splitlines() if line]
  assert len(lines) == 1 and lines[0].startswith("mtjax: "), errors


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("steps", 0, "steps must be >= 1"),
    ("accumulate", 3, "a batch of 4 does not divide into 3 parts"),
    ("ema", 1.0, "ema must be from 0"),
    ("objective", "nxt_token", "objective 'nxt_token' is not one of: next_token"),
    ("length", 65, "length 65 exceeds the model's 64 positions"),
    ("mesh", (3, 1), "4 rows per part .* do not divide over 3 data shards"),
    ("log_every", 0, "log_every must be at least 1"),
  ],
)
def test_a_bad_value_is_named_before_anything_runs(config, field, value, message):
  config.update(decay=0, warmup=0)
  config[field] = value
  with pytest.raises(ValueError, match=message):
    config_lib.read(config)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c.pop("steps"), "the config has no field steps"),
    (lambda c: c["data"].pop("sources"), "the config has no field data.sources"),
    (lambda c: c["model"].pop("dim"), "model.dim: a model of the kind 'transformer' needs it"),
    (lambda c: c.update(stesp=3), "a field stesp, which nothing reads; did you mean steps?"),
    (lambda c: c["optimizer"].update(b3=0.9), "a field optimizer.b3, which nothing reads"),
    (lambda c: c.update(steps="6"), "steps must be a whole number, got '6'"),
    (lambda c: c.update(ema="none"), "ema must be a number, got 'none'"),
    (lambda c: c.update(model=3), "model must be a group of fields, got 3"),
    (lambda c: c["model"].update(layers=1.5), "model.layers must be a whole number, got 1.5"),
    (lambda c: c.update(mesh=2), "mesh is 2: give a text such as 'data:2,model:4'"),
    (lambda c: c.update(mesh="data:1,heads:2"), "has the axes data, model, sequence, not 'heads'"),
    (lambda c: c.update(mesh="sequence:2"), "splits caches, which training has none of"),
  ],
)
def test_a_config_of_other_fields_or_kinds_is_refused_by_name(config, change, message):
  fields = config.to_dict()
  config_lib.read(fields)
  change(fields)
  with pytest.raises(ValueError, match=message.replace("?", "[?]")):
    config_lib.read(fields)


def test_a_run_refuses_a_config_without_data_by_name(config, tmp_path):
  fields = config.to_dict()
  fields.pop("data")
  with pytest.raises(ValueError, match="the config has no field data"):
    train(fields, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_fields_that_have_defaults_or_came_later_may_be_left_out(config):
  fields = config.to_dict()
  del fields["init"], fields["model"]["exits"], fields["optimizer"]["clip"]
  fields["optimizer"]["b1"] = 0.8  # a field of OptimizerConfig that the defaults do not name
  fields["mesh"], fields["ema"] = [1, 1], 0  # as JSON has them
  settings = config_lib.read(fields)
  assert (
    settings.optimizer.b1 == 0.8
    and settings.mesh == dict(data=1, model=1, sequence=1)
    and settings.init == ""
  )


def test_an_unknown_optimizer_is_named(config):
  config.optimizer.name = "adam"
  with pytest.raises(ValueError, match="'adam' is not one of: adamw, muon"):
    config_lib.read(config)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "train").glob("*.py")), ids=str)
def test_every_config_is_well_formed(path):
  scope = {}
  exec(compile(path.read_text(), str(path), "exec"), scope)
  for make in ("get_config", "tiny"):
    config = scope[make]()
    config_lib.read(config)
    assert not _lists(config), "lists cannot be overridden from the command line: use tuples"
  for word in ("python -m experiments.train", "CPU", "Expect"):
    assert word in scope["__doc__"], f"{path.name}: the header lacks {word!r}"


def _lists(config):
  return [
    name
    for name, value in config.items()
    if isinstance(value, list) or (isinstance(value, ConfigDict) and _lists(value))
  ]
