"""Names of methods on a command line: NAME or NAME:field=value:..., and their configs."""

import ast
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from mtjax.anysubset import FillMethod
from mtjax.cli.flags import check_unused
from mtjax.registry.configs import decode_config
from mtjax.registry.methods import get_fill_method


def method_config(name: str) -> ConfigDict:
  """Returns the config of --config=NAME, where NAME is a method or "auto:DRAFTER".

  Raises ValueError, with the known names, for an unknown one.
  """
  method, colon, of = name.partition(":")
  if colon and method != "auto":
    raise ValueError(f"{method!r} takes no argument; only auto does, as auto:trie")
  return decode_config(method, of=of) if colon else decode_config(method)


def config_of(name: str) -> dict[str, Any]:
  """Returns the settings of "lookup" or "lookup:length=5:branches=2".

  Fields are those of the config or else of the drafter, which "auto:of=trie" names. Raises
  ValueError for an unknown method.
  """
  method, *settings = name.split(":")
  values = _values(settings)
  of = {"of": values.pop("of")} if method == "auto" and "of" in values else {}
  config = decode_config(method, **of).to_dict()
  for field, value in values.items():
    place = config if field in config else config.setdefault("drafter", {})
    place[field] = value
  return config


def fill_method_of(method: flags.FlagHolder, window: flags.FlagHolder) -> FillMethod:
  """Returns the fill method of --method, "self" or "self:verifier=block:bonus=False", and --window.

  --window is the setting that the method's row calls so. Raises ValueError for an unknown method or
  setting, and for a --window that does nothing: of a method without one, or beside that setting.
  """
  name, *settings = method.value.split(":")
  entry, own = get_fill_method(name), _values(settings)
  if entry.window is None or entry.window in own:
    check_unused(f"with --method={method.value}", window)
  else:
    own[entry.window] = window.value
  return entry(**own)


def _values(settings: Sequence[str]) -> dict[str, Any]:
  """Returns {field: value} of "field=value"; what is no number, bool or tuple is text."""
  found = {}
  for field, _, text in (setting.partition("=") for setting in settings):
    try:
      found[field] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      found[field] = text
  return found
