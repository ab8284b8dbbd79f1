"""Flags for every launcher: a mistake in them ends with one clear line and exit code 2."""

import difflib
import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from mtjax.cli.config_file import ConfigFile, lacks_field

USAGE_EXIT = 2
_PROGRAM_CACHE = flags.DEFINE_string(
  "program_cache",
  None,
  "Folder in which compiled programs are kept for the next process, or off. Default: a folder in "
  "the user's cache.",
)
_WRITTEN = ("output", "results", "plot")
# Python's words for text that is no number, and ours.
_BAD_NUMBERS = {
  "invalid literal for int() with base 10:": "must be a whole number, got",
  "could not convert string to float:": "must be a number, got",
}


def main(run: Callable[[], int | None], *values: flags.FlagValues) -> None:
  """Parses flags, calls `run` and exits with the code that it returns (None: 0).

  `values`: flags of the launcher that are not yet among absl's global ones. --help then shows them
  and the docstring of the module that defines `run`, whichever module was started.

  A ValueError, OSError or ImportError that reaches this point can be mended by the user, as can
  whatever a config file raises or lacks: the message is printed on one line and the exit code is 2.
  With MTJAX_TRACEBACK=1 the traceback is shown.
  """

  def checked(argv: Sequence[str]) -> int | None:
    if not flags.FLAGS["verbosity"].present:
      # absl shows INFO by default, where JAX reports which backends it did not find.
      logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
      _exit(f"unexpected argument {argv[1]!r}: flags begin with --")
    # JAX takes half a second to import, which --help and mistakes in flags need not wait for.
    from mtjax.native.program_cache import keep_programs

    try:
      keep_programs(_PROGRAM_CACHE.value)
      return run()
    except BrokenPipeError:
      # The reader has closed the pipe; nothing may be written when Python flushes at exit either.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      return 0
    except (ValueError, OSError, ImportError) as error:
      if os.environ.get("MTJAX_TRACEBACK"):
        raise
      _exit(error)
    except (AttributeError, KeyError) as error:
      if os.environ.get("MTJAX_TRACEBACK") or not lacks_field(error):
        raise
      _exit(f"the config lacks a field: {error.args[0]}")

  for own in values:
    flags.FLAGS.append_flag_values(own)
    for name in own:
      flags.FLAGS.register_key_flag_for_module(sys.argv[0], own[name])
    # Their values are parsed together with absl's global flags.
    own.mark_as_parsed()
  if values:
    sys.modules["__main__"].__doc__ = sys.modules[run.__module__].__doc__
  try:
    app.run(checked, flags_parser=_parse)
  except KeyboardInterrupt:
    print("\nmtjax: interrupted", file=sys.stderr)
    sys.exit(130)


def define_config(
  values: flags.FlagValues, *, named: Callable[[str], ConfigDict], default: str = ""
) -> flags.FlagHolder:
  """Defines --config=NAME or FILE.py[:argument], and --config.field=value.

  `named` and `default` are those of `ConfigFile`.
  """
  text = (
    "Settings of the run: a name, or FILE.py with get_config()."
    + f" Default: {default}." * bool(default)
  )
  # No default path: config_flags would parse overrides at import, before errors can be caught.
  holder = config_flags.DEFINE_config_file("config", None, text, flag_values=values)
  flag: Any = values["config"]
  flag.parser = ConfigFile(named, default)
  # The flags of its fields are defined there, because `main` parses those.
  flag.flag_values = flags.FLAGS
  return holder


def required(holder: flags.FlagHolder, example: str) -> Any:
  """Returns the flag's value. Raises ValueError, with an example, if the flag is missing."""
  if holder.value is None:
    raise ValueError(f"--{holder.name} is missing, for example --{holder.name}={example}")
  return holder.value


def distinct(holder: flags.FlagHolder) -> list[str]:
  """Returns the names that a flag lists. Raises ValueError for none, and for duplicates."""
  names = holder.value
  if not names:
    raise ValueError(
      f"--{holder.name} lists nothing, for example --{holder.name}={holder.default[0]}"
    )
  twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
  if twice:
    raise ValueError(f"--{holder.name} lists {' and '.join(twice)} twice")
  return names


def check_unused(where: str, *holders: flags.FlagHolder) -> None:
  """Raises ValueError for flags that are present but have no effect there."""
  present = [f"--{holder.name}" for holder in holders if holder.present]
  if present:
    raise ValueError(f"{where}, {' and '.join(present)} would do nothing")


def check_alone(*holders: flags.FlagHolder) -> None:
  """Raises ValueError if more than one of these flags is given."""
  present = [f"--{holder.name}" for holder in holders if holder.present]
  if len(present) > 1:
    raise ValueError(f"{' and '.join(present)} exclude each other: give one of them")


def settings(module: str) -> dict[str, object]:
  """Returns the values of the flags that a module defines, but for files that it writes."""
  own = flags.FLAGS.get_flags_for_module(sys.modules[module])
  return {flag.name: flag.value for flag in own if flag.name not in _WRITTEN}


def check_output(*holders: flags.FlagHolder, inputs: Sequence[flags.FlagHolder] = ()) -> None:
  """Refuses, before the work, files that cannot be written at its end.

  Raises FileNotFoundError for a file in a folder that does not exist, IsADirectoryError for a
  folder, and ValueError for two flags that name one file, or an output that is also an input:
  `inputs` name files, NAME=FILE or sources (mtjax/data/sources/read.py).
  """
  known = {path.resolve(): holder.name for holder in inputs for path in _files(holder.value)}
  for holder in holders:
    if holder.value is None:
      continue
    path = Path(holder.value)
    if not path.absolute().parent.is_dir():
      raise FileNotFoundError(f"there is no folder {str(path.parent)!r} for --{holder.name}")
    if path.is_dir():
      raise IsADirectoryError(f"--{holder.name}={holder.value} is a folder: name a file in it")
    other = known.setdefault(path.resolve(), holder.name)
    if other != holder.name:
      raise ValueError(f"--{other} and --{holder.name} are one file, {holder.value}: name two")


def _files(value: str | Sequence[str] | None) -> Iterator[Path]:
  """Yields the files that a flag names: alone, as NAME=FILE, or as name=file:PATTERN#settings."""
  for each in [value] if isinstance(value, str) else value or ():
    pattern = each.partition("file:")[2].partition("#")[0] or each
    # The pattern itself too: a file's name may contain the special characters of patterns, and =.
    named = [pattern, pattern.partition("=")[2] or pattern]
    yield from map(Path, (*named, *glob.glob(pattern, recursive=True)))


def check_picture(holder: flags.FlagHolder) -> None:
  """Raises ValueError for a file that is no picture, as `plotting.check_suffix` does."""
  from mtjax.report.plotting import check_suffix

  if holder.value is not None:
    check_suffix(holder.value)


def fields(config: ConfigDict, prefix: str = "") -> Iterator[str]:
  """Yields the dotted names of all leaves."""
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from fields(value, f"{prefix}{name}.")
    else:
      yield prefix + name


def no_field(owner: str, name: str, known: Sequence[str]) -> str:
  """Returns the message that `owner` has no field of that name, with those that resemble it."""
  close = difflib.get_close_matches(name, known, 3, 0.4)
  hint = f"did you mean {' or '.join(close)}?" if close else f"it has: {', '.join(known)}"
  return f"{owner} has no field {name!r}; {hint}"


def _parse(argv: list[str]) -> list[str]:
  if not any(_is_config(a) for a in argv):
    parser = flags.FLAGS["config"].parser if "config" in flags.FLAGS else None
    if isinstance(parser, ConfigFile) and parser.default:
      argv = [argv[0], f"--config={parser.default}", *argv[1:]]
    elif any(a.startswith("--config.") for a in argv):
      # absl would call the field an unknown flag.
      _exit("--config.FIELD needs --config=FILE.py before it")
  try:
    return flags.FLAGS(argv)
  except Exception as error:  # noqa: BLE001 - flags and files are the user's, whatever they raise
    if os.environ.get("MTJAX_TRACEBACK"):
      raise
    _exit(_unknown_field(argv) or _in_words(error))


def _is_config(argument: str) -> bool:
  return argument.lstrip("-").partition("=")[0] == "config" and argument.startswith("-")


def _unknown_field(argv: list[str]) -> str | None:
  parser = flags.FLAGS["config"].parser if "config" in flags.FLAGS else None
  if not isinstance(parser, ConfigFile) or parser.config is None:
    return None
  known = list(fields(parser.config))
  for argument in argv:
    if argument.startswith("--config."):
      name = argument[len("--config.") :].split("=")[0]
      if name not in known:
        return no_field(parser.path, name, known)
  return None


def _in_words(error: Exception) -> str:
  """Returns the message of an error, with our words for a bad number in place of Python's."""
  text = str(error)
  for own, words in _BAD_NUMBERS.items():
    text = text.replace(own, words)
  return text


def _exit(message) -> NoReturn:
  text = " ".join(str(message).split())
  print(f"mtjax: {text}", file=sys.stderr)
  sys.exit(USAGE_EXIT)
