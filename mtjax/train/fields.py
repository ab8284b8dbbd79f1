"""Checks that a training config has the right fields, with values of the right kinds."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mtjax.train.defaults import canvas_model, defaults, xlnet_model
from mtjax.train.losses.registry import OBJECTIVES, defaults_of, get_objective
from mtjax.train.optimizers import OptimizerConfig

# Groups that become a dataclass: they may name any field of it, and leave out those with a default.
_CLASSES: dict[str, Any] = {"optimizer": OptimizerConfig}
# Runs that are older than these fields lack them.
_OPTIONAL = ("init", "lora")
# What may stand in a field of many kinds, its reader says.
_OF_MANY_KINDS = ("mesh",)
# Type of the default -> the types that may stand in its place, and what messages call them.
_KINDS: dict[type, tuple[Any, str]] = {
  bool: (bool, "True or False"),
  int: (int, "a whole number"),
  float: ((int, float), "a number"),
  str: (str, "text"),
  tuple: ((tuple, list), "a tuple"),
  dict: ((Mapping, ConfigDict), "a group of fields"),
}


def check_fields(config: Mapping[str, Any]) -> None:
  """Compares a config with `mtjax.train.defaults`.

  Raises ValueError for a field that is missing, that nothing reads, or whose value is of another
  kind than the default. A whole number may stand for a number, and a list (from JSON) for a tuple.
  Which fields a model has depends on its kind: `mtjax.train.config` checks those.
  """
  expected = defaults().to_dict()
  _check("", config, expected, optional=_OPTIONAL, known=[*expected, *OBJECTIVES])
  _check_objective(config)
  kinds = canvas_model().to_dict() | xlnet_model().to_dict() | expected.pop("model")
  _check_kinds("model.", config["model"], kinds)
  for name, default in expected.items():
    if isinstance(default, dict) and name in config:
      if name not in _CLASSES:
        _check(f"{name}.", config[name], default, optional=(), known=default)
        continue
      fields = {field.name: field for field in dataclasses.fields(_CLASSES[name])}
      optional = [n for n, field in fields.items() if field.default is not dataclasses.MISSING]
      known = [*default, *fields]
      _check(f"{name}.", config[name], default, optional=optional, known=known)


def check_groups(config: Mapping[str, Any]) -> None:
  """Raises ValueError for settings of another objective than the one that is named."""
  objective = config["objective"]
  for other in OBJECTIVES:
    if other != objective and other in config:
      raise ValueError(
        f"the config has {other}, settings of another objective than its own, which is "
        f"{objective!r}: remove {other}, or say objective={other!r}"
      )


def _check_objective(config: Mapping[str, Any]) -> None:
  """The group of the objective has fields of its settings. Groups of others: `check_groups`."""
  name = config["objective"]
  get_objective(name)
  settings = defaults_of(name)
  _check_kinds("", {name: config.get(name, {})}, {name: settings})
  _check(f"{name}.", config.get(name, {}), settings, optional=settings, known=settings)


def _check(
  prefix: str,
  config: Mapping[str, Any],
  expected: Mapping[str, Any],
  *,
  optional: Iterable[str],
  known: Iterable[str],
) -> None:
  if missing := expected.keys() - config.keys() - set(optional):
    raise ValueError(
      f"the config has no field {prefix}{min(missing)}; mtjax/train/defaults.py has them all"
    )
  for name in config:
    if name not in known:
      close = difflib.get_close_matches(name, list(known), 1)
      hint = f"; did you mean {prefix}{close[0]}?" if close else ""
      raise ValueError(f"the config has a field {prefix}{name}, which nothing reads{hint}")
  _check_kinds(prefix, config, expected)


def _check_kinds(prefix: str, config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
  for name, value in config.items():
    if name in expected and name not in _OF_MANY_KINDS:
      kind, words = _KINDS[type(expected[name])]
      if not isinstance(value, kind):
        raise ValueError(f"{prefix}{name} must be {words}, got {value!r}")
