"""Names of methods on a command line: NAME or NAME:field=value:..., and their configs."""

from typing import Any

from absl import flags
from ml_collections import ConfigDict

from mtjax.anysubset import FillMethod
from mtjax.cli.flags import check_unused
from mtjax.registry.configs import decode_config
from mtjax.registry.denoising.methods import DENOISERS, denoise_config
from mtjax.registry.methods import get_fill_method
from mtjax.registry.spelling import settings_of


def method_config(name: str) -> ConfigDict:
  """Returns the config of --config=NAME, where NAME is a method or "auto:DRAFTER".

  Methods are those of decoding and of denoising. Raises ValueError, with the known names, for an
  unknown one.
  """
  if name in DENOISERS:
    return denoise_config(name)
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
  values = settings_of(settings)
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
  entry, own = get_fill_method(name), settings_of(settings)
  if entry.window is None or entry.window in own:
    check_unused(f"with --method={method.value}", window)
  else:
    own[entry.window] = window.value
  return entry(**own)
