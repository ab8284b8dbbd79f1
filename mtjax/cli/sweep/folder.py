"""The folder of a sweep's results: what was to run, and the state of every run.

    sweep.json            the sweep, as it was when it began
    config.py             its config, which every run reads
    runs/000/log.txt      what run 0 printed
    runs/000/state.json   how it ended, and its metrics
    runs/000/workdir      what it wrote: a folder or output.json

Every file is replaced whole: whatever ends a sweep, each holds old content or new content.
"""

import contextlib
import dataclasses
import json
import pprint
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from mtjax.cli.sweep.definition import Settings, Sweep, described
from mtjax.cli.sweep.programs import PROGRAMS
from mtjax.cli.sweep.values import settled
from mtjax.report.results import write_json
from mtjax.train.lock import LOCK_FILE, exclusive

FINISHED, FAILED, STOPPED, RUNNING, WAITING = "finished", "failed", "stopped", "running", "waiting"
_CONFIG = '''\
"""The config of this folder's sweep, as it was when the sweep began. Every run reads it."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(
{fields}
  )
'''
# Files of a sweep that was killed before sweep.json was written.
_FIRST = {LOCK_FILE, "config.py", "sweep.json.new"}
_MAX_DIFFERENCES = 4  # that a message names


@dataclasses.dataclass(frozen=True)
class State:
  """How far a run has come. Its fields are those of state.json."""

  state: str = WAITING
  exit_code: int | None = None
  attempts: int = 0
  seconds: float = 0.0  # of all attempts
  message: str = ""  # why it failed, where its exit code does not say so
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Folder:
  """The results folder of one sweep."""

  path: Path
  sweep: Sweep

  def run(self, index: int) -> Path:
    return self.path / "runs" / f"{index:03d}"

  def log(self, index: int) -> Path:
    return self.run(index) / "log.txt"

  def state(self, index: int) -> State:
    with contextlib.suppress(FileNotFoundError):
      return State(**json.loads((self.run(index) / "state.json").read_text(encoding="utf-8")))
    return State()

  def set_state(self, index: int, state: State) -> None:
    write_json(self.run(index) / "state.json", dataclasses.asdict(state))

  @contextlib.contextmanager
  def locked_run(self, index: int) -> Generator[int]:
    """Locks a run against other launchers. Raises ValueError if one of them runs it."""
    with exclusive(self.run(index), busy="it runs there already") as lock:
      yield lock

  def rows(self) -> list[dict[str, Any]]:
    """Returns what results.jsonl has of each run."""
    seed = self.sweep.program.seed
    rows = []
    for index, settings in enumerate(self.sweep.runs):
      # Without a setting of its own the seed is that of all runs.
      default = self.sweep.flags.get(seed, (self.sweep.config or {}).get("seed"))
      row: dict[str, Any] = dict(run=index, seed=settings.get(seed, default))
      row["settings"] = {name: value for name, value in settings.items() if name != seed}
      row |= dataclasses.asdict(self.state(index))
      rows.append(row | dict(log=self.log(index).relative_to(self.path).as_posix()))
    return rows


def create(path: Path, sweep: Sweep) -> Folder:
  """Returns the folder of a sweep, an empty one or one where it has begun; `path` exists.

  Raises ValueError, with the differences, for a folder where another sweep has begun, and for a
  folder with other files.
  """
  if (path / "sweep.json").exists():
    folder = existing(path)
    if differences := _differences(folder.sweep, sweep):
      more = len(differences) - _MAX_DIFFERENCES
      shown = "; ".join(differences[:_MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
      raise ValueError(
        f"another sweep has begun in {str(path)!r}: {shown}. Give another --results, or put back "
        "what it was to continue"
      )
    return folder
  if others := sorted({file.name for file in path.iterdir()} - _FIRST):
    raise ValueError(
      f"{str(path)!r} holds files of something else, such as {others[0]!r}: give another --results"
    )
  if sweep.config is not None:
    fields = pprint.pformat(sweep.config, width=96)
    text = _CONFIG.format(fields="\n".join(f"    {line}" for line in fields.splitlines()))
    (path / "config.py").write_text(text, encoding="utf-8")
  write_json(path / "sweep.json", dataclasses.asdict(sweep))
  return Folder(path, sweep)


def existing(path: Path) -> Folder:
  """Returns the folder of a sweep that has begun. Raises ValueError for another folder."""
  try:
    record = json.loads((path / "sweep.json").read_text(encoding="utf-8"))
  except (FileNotFoundError, NotADirectoryError):
    raise ValueError(f"no sweep has begun in {str(path)!r}: it has no sweep.json") from None
  sweep = Sweep(**{name: settled(value) for name, value in record.items()})
  if sweep.program_name not in PROGRAMS:
    raise ValueError(f"the sweep in {str(path)!r} runs {sweep.program_name!r}, which is no program")
  return Folder(path, sweep)


def _differences(before: Sweep, now: Sweep) -> list[str]:
  lines = []
  if before.program_name != now.program_name:
    lines.append(f"its program was {before.program_name} and is {now.program_name}")
  for owner, old, new in (
    ("config.", _flat(before.config or {}), _flat(now.config or {})),
    ("--", before.flags, now.flags),
  ):
    for name in sorted({*old, *new}):
      was, is_ = (repr(one[name]) if name in one else "missing" for one in (old, new))
      if was != is_:
        lines.append(f"{owner}{name} was {was} and is {is_}")
  gone = [run for run in before.runs if run not in now.runs]
  added = [run for run in now.runs if run not in before.runs]
  lines += [f"it had the run {described(run) or 'without settings'}" for run in gone]
  lines += [f"the run {described(run) or 'without settings'} is new" for run in added]
  if not gone and not added and before.runs != now.runs:
    lines.append("its runs had another order")
  return lines


def _flat(config: Settings, prefix: str = "") -> Settings:
  out: Settings = {}
  for name, value in config.items():
    if isinstance(value, dict):
      out |= _flat(value, f"{prefix}{name}.")
    else:
      out[prefix + name] = value
  return out
