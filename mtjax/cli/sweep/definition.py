"""What a sweep runs: a program, its config and flags, and the checked settings of every run."""

import dataclasses
import inspect
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mtjax.cli import config_file
from mtjax.cli.config_file import ConfigError
from mtjax.cli.sweep import values
from mtjax.cli.sweep.programs import PROGRAMS, SweptProgram
from mtjax.cli.sweep.values import FIELD

Settings = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A checked sweep. Values hold tuples in place of lists."""

  name: str
  program_name: str
  config: Settings | None  # None: the program has no config
  flags: Settings  # the same in all runs
  runs: tuple[Settings, ...]  # the seed is one of the settings

  @property
  def program(self) -> SweptProgram:
    return PROGRAMS[self.program_name]

  def label(self, index: int) -> str:
    """Returns the settings of a run on one line, without those that are the same in all runs."""
    run, first = self.runs[index], self.runs[0]
    same = {name for name in first if all(one.get(name) == first[name] for one in self.runs)}
    own = {name: value for name, value in run.items() if name not in same}
    return described(own or run) or self.name


def read_sweep(argument: str, *, seeds: int | None, passed: Sequence[str]) -> Sweep:
  """Returns the sweep of FILE.py[:argument].

  The file says `PROGRAM = "train"` (or another name of PROGRAMS) and has a function sweep(), which
  returns the settings of every run: {flag: value}, where the flag of a config field is
  "config.FIELD". A program with a config needs get_config() too. `passed` are flags of the program
  for all runs, "--NAME=VALUE"; `seeds` runs every setting with the seeds 0, ..., seeds - 1.

  Raises ValueError for what is missing in the file, for an unknown flag, field or value, for an
  empty sweep, and for two runs that are the same.
  """
  try:
    module = config_file.load_module(argument.partition(":")[0])
    with config_file.naming_the_file(argument):
      name = _program_name(module)
      config = None
      if "config" in PROGRAMS[name].flags():
        config = config_file.get_config(module, argument)
      runs = _settings_of(module)
  except ConfigError as error:
    raise ValueError(str(error)) from error
  try:
    return _checked(argument, name, config, runs, seeds, passed)
  except ValueError as error:
    raise ValueError(f"config file {argument!r}: {error}") from None


def _program_name(module) -> str:
  name = getattr(module, "PROGRAM", None)
  if name not in PROGRAMS:
    said = "it does not say which program it sweeps" if name is None else f"PROGRAM is {name!r}"
    raise ConfigError(f'{said}; PROGRAM = "train" would do, or: {", ".join(PROGRAMS)}')
  return name


def _settings_of(module) -> list[Any]:
  make = getattr(module, "sweep", None)
  if not callable(make):
    raise ConfigError(
      "it has no function sweep(), which returns the settings of every run, for example "
      '[{"config.seed": 0}, {"config.seed": 1}]'
    )
  if inspect.signature(make).parameters:
    raise ConfigError("its sweep() must have no parameters")
  settings = make()
  if isinstance(settings, Mapping) or not hasattr(settings, "__iter__"):
    kind = type(settings).__name__
    raise ConfigError(f"its sweep() must return a list of settings, as [{{...}}], not {kind}")
  settings = list(settings)
  if not settings:
    raise ConfigError("its sweep() returns no settings: there is nothing to run")
  for one in settings:
    if not isinstance(one, Mapping) or not all(isinstance(name, str) for name in one):
      raise ConfigError(f"its sweep() must return {{flag: value}} for each run, not {one!r}")
  return settings


def _checked(argument, name, config, runs, seeds, passed) -> Sweep:
  program = PROGRAMS[name]
  runs = [{key: values.settled(value) for key, value in one.items()} for one in runs]
  flags = dict(_passed(passed))
  for key in {*flags, *(key for one in runs for key in one)} & {"config", program.output}:
    raise ValueError(f"{key} is set by the sweep itself: leave it out")
  if seeds is not None:
    runs = _with_seeds(runs, program.seed, seeds)
  for key in dict.fromkeys(key for one in runs for key in one):
    if key in flags:
      raise ValueError(f"{key} is set by sweep() and behind -- as well: leave one out")
  for one in runs:
    if (first := runs.index(one)) != (again := _last_index(runs, one)):
      raise ValueError(f"runs {first} and {again} are the same: {described(one) or 'no settings'}")
  if config is not None:
    config = ConfigDict(config.to_dict())
    for key in [key for key in flags if key.startswith(FIELD)]:
      path = key.removeprefix(FIELD)
      values.set_field(config, argument, path, values.parsed(flags.pop(key), path, config))
  known = program.flags()
  for number, one in enumerate([flags, *runs]):
    try:
      _check_run(program, known, config, one, argument)
    except ValueError as error:
      raise ValueError(f"run {number - 1}: {error}" if number else str(error)) from None
  frozen = None if config is None else values.settled(config.to_dict())
  return Sweep(_name(argument), name, frozen, flags, tuple(runs))


def _check_run(program, known, config, settings, argument) -> None:
  config = None if config is None else ConfigDict(config.to_dict())
  for key, value in settings.items():
    values.check_value(key, value)
    if key.startswith(FIELD) and config is not None:
      values.set_field(config, argument, key.removeprefix(FIELD), value)
    else:
      values.check_flag(known, f"the program {program.module}", key, value)
  if config is not None:
    program.check(config, settings)


def _passed(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
  seen: dict[str, tuple[str, ...]] = {}
  for argument in arguments:
    name, equals, value = argument.lstrip("-").partition("=")
    if not argument.startswith("--") or not name:
      raise ValueError(f"{argument!r} behind -- is no flag, such as --config.steps=100")
    seen[name] = (*seen.get(name, ()), value if equals else "true")
  for name, each in seen.items():
    yield name, each[0] if len(each) == 1 else each


def _with_seeds(runs: list[Settings], flag: str, seeds: int) -> list[Settings]:
  if any(flag in one for one in runs):
    raise ValueError(f"its sweep() sets {flag} itself: leave --seeds out")
  return [one | {flag: seed} for one in runs for seed in range(seeds)]


def _last_index(runs: Sequence[Settings], one: Settings) -> int:
  return len(runs) - 1 - list(reversed(runs)).index(one)


def _name(argument: str) -> str:
  return argument.partition(":")[0].rpartition("/")[2].removesuffix(".py")


def described(settings: Mapping[str, Any]) -> str:
  """Returns settings on one line, as a shell reads it: "optimizer.learning_rate=0.01 seed=2"."""
  return " ".join(
    f"{name.removeprefix(FIELD)}={shlex.quote(' '.join(str(value).split()))}"
    for name, value in settings.items()
  )
