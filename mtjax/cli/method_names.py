"""Names of methods on a command line: NAME or NAME:field=value:..., and their configs."""

import json
from typing import Any

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


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

  Fields are those of the config or else of the drafter. Raises ValueError for an unknown method.
  """
  method, *settings = name.split(":")
  config = decode_config(method).to_dict()
  for field, _, value in (setting.partition("=") for setting in settings):
    place = config if field in config else config.setdefault("drafter", {})
    place[field] = json.loads(value) if value[:1].isdigit() else value
  return config
