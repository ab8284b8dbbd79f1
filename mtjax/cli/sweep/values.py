"""Values of flags and of config fields: their kinds, and their text on a command line."""

import ast
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from mtjax.cli.flags import fields, no_field

FIELD = "config."  # what the flag of a config field begins with
_PLAIN = (str, bool, int, float)


def settled(value: Any) -> Any:
  """Returns a value with tuples for its lists: JSON has no tuples, and configs mean the same."""
  if isinstance(value, list | tuple):
    return tuple(settled(one) for one in value)
  if isinstance(value, Mapping):
    return {name: settled(one) for name, one in value.items()}
  return value


def check_value(name: str, value: Any) -> None:
  """Raises ValueError for a value that a command line and a JSON file cannot hold."""
  if not _is_plain(value):
    raise ValueError(
      f"{name} must be text, a number, True, False, or a tuple of such values, got {value!r}"
    )


def _is_plain(value: Any) -> bool:
  return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def set_field(config: ConfigDict, owner: str, path: str, value: Any) -> None:
  """Sets a field of a config by its dotted path.

  Raises ValueError, with the names that resemble it, for a field that `owner` does not have, and
  for a value of another kind than the one that it has.
  """
  known = list(fields(config))
  if path not in known:
    raise ValueError(no_field(owner, path, known))
  *groups, last = path.split(".")
  for name in groups:
    config = config[name]
  before = config[last]
  try:
    config[last] = value
  except TypeError:
    raise ValueError(f"{path} must be of the kind of {before!r}, got {value!r}") from None


def parsed(text: str, path: str, config: ConfigDict) -> Any:
  """Returns what --config.PATH=TEXT means: a value of the kind that the field has."""
  known = dict(_leaves(config))
  like = known.get(path)
  try:
    if isinstance(like, bool):
      return flags.BooleanParser().parse(text)
    if isinstance(like, int | float):
      return type(like)(text)
    if isinstance(like, list | tuple):
      return settled(ast.literal_eval(text))
  except (ValueError, SyntaxError):
    raise ValueError(f"{path} must be of the kind of {like!r}, got {text!r}") from None
  return text


def _leaves(config: ConfigDict, prefix: str = "") -> Any:
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _leaves(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value


def check_flag(known: Mapping[str, flags.Flag], owner: str, name: str, value: Any) -> None:
  """Raises ValueError for a flag that a program does not have, or a value that it refuses."""
  if name not in known:
    own = [*known, f"{FIELD}FIELD"] if "config" in known else list(known)
    close = difflib.get_close_matches(name, own, 3, 0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"it has: {', '.join(own)}"
    raise ValueError(f"{owner} has no flag {name!r}; {hint}")
  for text in texts(known[name], value):
    try:
      known[name].parser.parse(text)
    except (ValueError, TypeError) as error:
      raise ValueError(f"{name}={text}: {error}") from None


def texts(flag: flags.Flag | None, value: Any) -> Sequence[str]:
  """Returns the texts that give a value to a flag, several of a flag that may be repeated.

  `flag` is None for a field of a config.
  """
  if isinstance(flag, flags.MultiFlag) and isinstance(value, tuple):
    return [str(one) for one in value]
  if flag is not None and isinstance(value, tuple):
    return [",".join(map(str, value))]
  return [str(value)]
