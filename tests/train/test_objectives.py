"""Every objective of the registry: what its row says, what its loss adds up, what configs say."""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.train import bundled_anysubset, shakespeare, sorted_draft
from mtjax.train import config as config_lib
from mtjax.train.defaults import defaults, xlnet_model
from mtjax.train.losses.next_token import next_token_loss
from mtjax.train.losses.objective import Loss, Objective, Total
from mtjax.train.losses.registry import (
  OBJECTIVES,
  ObjectiveRow,
  defaults_of,
  get_objective,
  objective_settings,
)
from mtjax.train.step import init_state, make_step
from tests.draft.test_drafter_settings import other, parsed
from tests.source import ROOT

ROWS, LENGTH = 4, 12


def tiny_of(name):
  """The smallest run of the config that the row names, with the objective."""
  path = OBJECTIVES[name].config
  config = importlib.import_module(path.removesuffix(".py").replace("/", ".")).tiny()
  if path == "configs/train/tiny.py":  # of any causal model
    config.objective = name
  return config


@functools.cache
def settings_of(name):
  config = tiny_of(name)
  config.data.sources = ("builtin:tinyshakespeare",)
  config.init = ""
  return config_lib.read(config)


def batch(vocab):
  """Rows of two documents, of which the last row has none: it is padding."""
  rng = np.random.default_rng(0)
  tokens, targets = rng.integers(0, vocab, (2, ROWS, LENGTH))
  segment = np.repeat(np.array([[1] * 7 + [2] * 5]), ROWS, axis=0)
  segment[-1] = 0
  position = np.where(segment == 2, np.arange(LENGTH) - 7, np.arange(LENGTH))
  return dict(
    tokens=tokens.astype(np.int32),
    targets=targets.astype(np.int32),
    segment=segment.astype(np.int32),
    position=position.astype(np.int32),
    weight=(segment > 0).astype(np.float32),
  )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_row_names_files_and_a_config_that_trains_with_it(name):
  row = OBJECTIVES[name]
  for path in (row.file, row.config):
    assert (ROOT / path).is_file(), f"{name}: {path} does not exist"
  assert tiny_of(name).objective == settings_of(name).objective == name
  assert settings_of(name).model.config.predicts in row.predicts
  assert row.summary.endswith(".") and row.summary[0].isupper()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_settings_are_a_frozen_dataclass_with_defaults_and_a_group_of_flags(name, tmp_path):
  settings = OBJECTIVES[name].settings()
  assert dataclasses.is_dataclass(settings) and hash(settings) is not None
  assert name not in defaults(), "the group of an objective would hide this field"
  changed = {field: other(value) for field, value in defaults_of(name).items()}
  file = tmp_path / "mine.py"
  file.write_text(
    "from mtjax.train.defaults import tiny\n"
    "from mtjax.train.losses.registry import objective_settings\n\n"
    f"def get_config():\n  config = tiny()\n  config.{name} = objective_settings({name!r})\n"
    "  return config\n"
  )
  overrides = [f"{name}.{field}={text}" for field, (_, text) in changed.items()]
  found = parsed(str(file), *overrides)[name].to_dict()
  assert found == {field: value for field, (value, _) in changed.items()}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_steps_do_not_depend_on_the_number_of_parts(name):
  settings = settings_of(name)
  assert isinstance(settings.loss, Objective)
  rows, optimizer = batch(settings.model.config.vocab_size), optax.sgd(0.1)
  found = []
  for parts in (1, 2):
    state = init_state(settings.model, optimizer, seed=0)
    step = jax.jit(make_step(settings.loss, optimizer, accumulate=parts))
    losses = []
    for _ in range(2):
      state, metrics = step(state, rows)
      losses.append(float(metrics["loss"]))
    found.append((losses, state.params))
    assert np.isfinite(losses).all() and float(metrics["grad_norm"]) > 0
  (one, first), (two, second) = found
  np.testing.assert_allclose(one, two, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-6), first, second)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_padding_counts_for_nothing(name):
  settings = settings_of(name)
  vocab = settings.model.config.vocab_size
  params = settings.model.init(jax.random.key(0))

  @jax.jit
  def total(rows):
    prepared = settings.loss.prepare(rows, jax.random.key(1), 0)
    return settings.loss.total(params, prepared)

  rows = batch(vocab)
  changed = dict(rows, **{k: np.where(rows["segment"] > 0, rows[k], 7) for k in ("tokens",)})
  one, two = total(rows), total(changed)
  assert float(one.weight) > 0
  assert float(one.sum) == float(two.sum) and float(one.weight) == float(two.weight)


def means(model, settings):
  """Wrong: a mean over what it is given, which parts of a batch do not add up to."""
  right = next_token_loss(model)

  def total(params, batch):
    found = right.total(params, batch)
    return Total(found.sum / found.weight, jnp.ones(()))

  return Loss(total)


def padded(model, settings):
  """Wrong: padding counts."""
  right = next_token_loss(model)
  everything = {"weight": np.ones((ROWS, LENGTH), np.float32)}
  return Loss(lambda params, batch: right.total(params, {**batch, **everything}))


@pytest.mark.parametrize(
  ("wrong", "proof"),
  [
    (means, test_two_steps_do_not_depend_on_the_number_of_parts),
    (padded, test_padding_counts_for_nothing),
  ],
)
def test_the_proofs_see(wrong, proof, monkeypatch):
  row = ObjectiveRow(wrong, "Wrong.", "-", "mtjax/train/losses/next_token.py")
  monkeypatch.setitem(OBJECTIVES, wrong.__name__, row)
  with pytest.raises(AssertionError):
    proof(wrong.__name__)


def any_subset():
  return bundled_anysubset.tiny()


def causal():
  return shakespeare.tiny()


def sorted_model():
  return sorted_draft.tiny()


@pytest.mark.parametrize(
  ("make", "change", "message"),
  [
    (causal, dict(objective="z"), "objective 'z' is not one of: next_token, s2d, any_subset"),
    (causal, dict(any_subset={}), "has any_subset, .*is 'next_token': .* say objective='any_subs"),
    (causal, dict(next_token=dict(k=1)), "has a field next_token.k, which nothing reads"),
    (causal, dict(masking=dict(queries=8)), "masking is the older name .*'next_token': remove ma"),
    (causal, dict(objective="s2d"), "the S2D loss needs model.exits"),
    (sorted_model, dict(objective="any_subset"), "trains models of model.predicts 'any_subset'"),
    (any_subset, dict(objective="s2d"), "predicts 'next_token', and this one has 'any_subset'"),
    (causal, dict(any_subset=None), "has any_subset, settings of another objective than its own"),
    (any_subset, dict(any_subset=dict(querys=8)), "any_subset.querys, .* mean any_subset.queries"),
    (any_subset, dict(any_subset=dict(queries="8")), "any_subset.queries must be a whole number"),
    (any_subset, dict(any_subset=3), "any_subset must be a group of fields, got 3"),
    (
      any_subset,
      dict(any_subset=dict(spans=2.0)),
      "config.any_subset: .*must be a probability",
    ),
    (any_subset, dict(masking={}), "any_subset and masking, its older name: keep any_subset"),
  ],
)
def test_settings_that_nothing_reads_or_that_are_wrong_are_refused(make, change, message):
  fields = make().to_dict() | change
  with pytest.raises(ValueError, match=message):
    config_lib.read(fields)


def test_an_xlnet_is_refused_by_objectives_of_causal_models():
  fields = any_subset().to_dict() | dict(model=xlnet_model().to_dict(), objective="s2d")
  del fields["any_subset"]
  with pytest.raises(ValueError, match="'s2d' trains causal models, and an entry of an XLNet sees"):
    config_lib.read(fields)


def test_settings_may_be_left_out_and_lists_are_tuples():
  fields = any_subset().to_dict() | dict(any_subset=dict(start=[0.1, 0.2]))
  found = config_lib.read(fields).objective_settings
  assert found == OBJECTIVES["any_subset"].settings(start=(0.1, 0.2))
  del fields["any_subset"]
  assert config_lib.read(fields).objective_settings == OBJECTIVES["any_subset"].settings()


def test_mistakes_in_python_are_named():
  with pytest.raises(ValueError, match="'any_subset' has no setting query; it has: start, end"):
    objective_settings("any_subset", query=8)
  with pytest.raises(ValueError, match="'s2d' has no setting exits; it has: none"):
    objective_settings("s2d", exits=(1, 2))
  with pytest.raises(ValueError, match="objective 'mlm' is not one of: next_token"):
    get_objective("mlm")
