"""The parser of --config: a name or a Python file; errors name the file and the line."""

import contextlib
import dataclasses
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Generator
from importlib import machinery, util
from types import ModuleType, TracebackType

from absl import flags
from ml_collections import ConfigDict

_MODULE = "config_config"  # as ml_collections names it


class ConfigError(flags.Error):
  """An unusable config file; the message names the file, and the line that failed."""


@dataclasses.dataclass(eq=False)
class ConfigFile(flags.ArgumentParser):
  """The parser of --config=FILE.py[:argument]: the ConfigDict of get_config(argument), locked.

  It replaces the parser of ml_collections, which shows an exception in the file as a traceback and
  accepts a result that is not a ConfigDict. Raises ConfigError.

  `named` makes the config for a value that is a name and not a path, such as --config=lookup; it
  raises ValueError for an unknown name. `default` is the value where --config is missing; "": none.
  """

  named: Callable[[str], ConfigDict] | None = None
  default: str = ""
  # The last value that could be used, and its config.
  path: str = ""
  config: ConfigDict | None = None

  def parse(self, argument: str) -> ConfigDict:
    file = argument.partition(":")[0]
    if self.named is not None and file.isidentifier():
      try:
        config = self.named(argument)
      except ValueError as error:
        raise ConfigError(f"--config={argument} is not a file, and as a name: {error}") from None
      self.path, self.config = argument, config.lock()
      return config
    module = load_module(file)
    with naming_the_file(argument):
      config = get_config(module, argument)
    self.path, self.config = argument, config.lock()
    return config

  def flag_type(self) -> str:
    return "config file"


def lacks_field(error: BaseException) -> bool:
  """Returns whether a ConfigDict raised the error because it lacks a field."""
  last = _last(error.__traceback__)
  return isinstance(error, (AttributeError, KeyError)) and last.startswith("ml_collections.")


@contextlib.contextmanager
def naming_the_file(argument: str) -> Generator[None]:
  """Turns whatever the code of a config file raises into a ConfigError with its name and line."""
  file = argument.partition(":")[0]
  try:
    yield
  except ConfigError as error:
    raise ConfigError(f"config file {argument!r}: {error}") from None
  except (Exception, SystemExit) as error:  # noqa: BLE001 - the file may do anything
    raise ConfigError(f"config file {file!r} failed{_where(error, file)}") from error


def load_module(file: str) -> ModuleType:
  """Runs a config file as a module. Raises ConfigError, with its name, for one that fails."""
  if not os.path.exists(file):
    raise ConfigError(f"config file {file!r} does not exist")
  if os.path.isdir(file):
    raise ConfigError(f"config file {file!r} is a folder: name a file in it")
  loader = machinery.SourceFileLoader(_MODULE, file)
  spec = util.spec_from_loader(_MODULE, loader)
  assert spec is not None, "there is one for every loader"
  module = util.module_from_spec(spec)
  # dataclasses and pickle look the module up here.
  sys.modules[_MODULE] = module
  with naming_the_file(file):
    loader.exec_module(module)
  return module


def get_config(module: ModuleType, argument: str) -> ConfigDict:
  """Returns what get_config() of a file's module returns; `argument` is FILE.py[:argument].

  Raises ConfigError for a module without such a function, for an argument that it does not take or
  lacks, and for a result that is no ConfigDict.
  """
  _, colon, config_argument = argument.partition(":")
  arguments = [config_argument] if colon else []
  make = getattr(module, "get_config", None)
  if not callable(make):
    raise ConfigError("it has no function get_config()")
  try:
    inspect.signature(make).bind(*arguments)
  except TypeError:
    wanted = "no argument" if arguments else "an argument, as --config=FILE.py:ARGUMENT"
    raise ConfigError(f"its get_config() takes {wanted}") from None
  config = make(*arguments)
  if not isinstance(config, ConfigDict):
    raise ConfigError(f"its get_config() must return a ConfigDict, not {type(config).__name__}")
  return config


def _where(error: BaseException, file: str) -> str:
  """Returns text such as ", line 3: KeyError: 'a'"; the line is the last one within the file."""
  if isinstance(error, SyntaxError) and error.filename not in (None, file):
    return f" by importing {error.filename!r}, line {error.lineno}: {error.msg}"
  if isinstance(error, SyntaxError):
    lines, message = [error.lineno], f"{type(error).__name__}: {error.msg}"
  else:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    message = "".join(traceback.format_exception_only(error))
  return (f", line {lines[-1]}" if lines and lines[-1] else "") + f": {message.strip()}"


def _last(trace: TracebackType | None) -> str:
  """Returns the name of the module where the error was raised."""
  while trace is not None and trace.tb_next is not None:
    trace = trace.tb_next
  return "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
