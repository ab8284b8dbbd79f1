"""Methods named on a command line: NAME or NAME:field=value:..., with the method's config."""

import importlib
import json
from typing import Any

from mtjax.methods import METHODS, check_method


def config_of(name: str) -> dict[str, Any]:
  """The config of configs/decode for "lookup" or "lookup:length=5:branches=2".

  Fields are the config's own or else the drafter's. Raises ValueError for an unknown method.
  """
  method, *settings = name.split(":")
  check_method(method)
  own = method in METHODS
  file = METHODS[method].config if own else "configs/decode/drafter.py"
  module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
  config = (module.get_config() if own else module.get_config(method)).to_dict()
  for field, _, value in (setting.partition("=") for setting in settings):
    place = config if field in config else config.setdefault("drafter", {})
    place[field] = json.loads(value) if value[:1].isdigit() else value
  return config
