"""What a local sweep shows while it runs: a table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mtjax.cli.running import progress
from mtjax.cli.sweep.folder import FAILED, FINISHED, RUNNING, Folder, State
from mtjax.cli.sweep.process import last_lines
from mtjax.cli.sweep.programs import shown_metrics

_REFRESH = 0.5  # seconds between two pictures of the table
_MAX_ROWS = 20
_MAX_WIDTH = 40  # of settings


@runtime_checkable
class Display(Protocol):
  """What happens, as `mtjax.cli.sweep.local` tells it. `seconds` are of the runs that run now."""

  def began(self, index: int) -> None: ...

  def ended(self, index: int, state: State) -> None: ...

  def elsewhere(self, index: int, message: str) -> None: ...

  def ending(self, count: int) -> None: ...

  def update(self, seconds: Mapping[int, float]) -> None: ...

  def close(self) -> None: ...


class RunLines:
  """One line per event on standard error, for log files."""

  def __init__(self, folder: Folder):
    self._folder = folder
    self._waited: set[int] = set()

  def _line(self, index: int, text: str) -> None:
    progress(f"run {index}, {self._folder.sweep.label(index)}: {text}")

  def began(self, index: int) -> None:
    self._line(index, "started")

  def ended(self, index: int, state: State) -> None:
    more = outcome(self._folder, state)
    self._line(index, f"{state.state} after {state.seconds:.0f} s" + f": {more}" * bool(more))

  def elsewhere(self, index: int, message: str) -> None:
    if index not in self._waited:
      self._waited.add(index)
      self._line(index, f"waiting, as {message}")

  def ending(self, count: int) -> None:
    progress(f"ending {count} runs, which save first; Ctrl-C once more ends them at once")

  def update(self, seconds: Mapping[int, float]) -> None:
    pass

  def close(self) -> None:
    pass


class RunTable:
  """A table of all runs on standard error: state, time, metrics or the last line of the log."""

  def __init__(self, folder: Folder):
    self._folder = folder
    self._states = {i: folder.state(i) for i in range(len(folder.sweep.runs))}
    self._seconds: Mapping[int, float] = {}
    self._notes: dict[int, str] = {}
    self._drawn = 0.0
    self._live = Live(console=Console(stderr=True), auto_refresh=False)
    self._live.start()

  def began(self, index: int) -> None:
    self._notes.pop(index, None)

  def ended(self, index: int, state: State) -> None:
    self._states[index] = state
    self._seconds = {i: s for i, s in self._seconds.items() if i != index}
    self._draw()

  def elsewhere(self, index: int, message: str) -> None:
    self._notes[index] = message

  def ending(self, count: int) -> None:
    self._live.console.print(f"ending {count} runs, which save first; Ctrl-C ends them at once")

  def update(self, seconds: Mapping[int, float]) -> None:
    self._seconds = seconds
    if time.monotonic() - self._drawn >= _REFRESH:
      self._draw()

  def close(self) -> None:
    self._draw()
    self._live.stop()

  def _draw(self) -> None:
    self._drawn = time.monotonic()
    self._live.update(self.table(), refresh=True)

  def table(self) -> Table:
    """Returns the table as it is now: all runs, or those that run or failed where they are many."""
    done = sum(state.state == FINISHED for state in self._states.values())
    title = f"{self._folder.sweep.name}: {done} of {len(self._states)} runs finished"
    table = Table(title=title, expand=True)
    settings = [self._folder.sweep.label(index) for index in self._states]
    widest = min(max(map(len, settings)), _MAX_WIDTH)
    # Without smallest widths a long line of a log would leave no place for the others.
    for name, width in (("run", 3), ("settings", widest), ("state", 8), ("time", 6)):
      table.add_column(
        name, no_wrap=True, overflow="ellipsis", min_width=width, max_width=_MAX_WIDTH
      )
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    shown = list(self._states)
    if len(shown) > _MAX_ROWS:
      shown = [i for i in shown if i in self._seconds or self._states[i].state == FAILED]
    for index in shown[-_MAX_ROWS:]:
      state, running = self._states[index], index in self._seconds
      seconds = self._seconds.get(index, state.seconds)
      text = outcome(self._folder, state)
      if running:
        text = "".join(last_lines(self._folder.log(index), 1))
        text = "starting" if text.startswith("$ ") else text
      table.add_row(
        str(index),
        settings[index],
        RUNNING if running else state.state,
        f"{seconds:.0f} s" if seconds else "",
        self._notes.get(index) or text if running or state.attempts else "",
      )
    return table


def make_display(folder: Folder) -> Display:
  """Returns a table if standard error is a terminal, and lines otherwise."""
  return (RunTable if sys.stderr.isatty() else RunLines)(folder)


def outcome(folder: Folder, state: State) -> str:
  """Returns what a run that has ended gave, as "loss 3.21", or why it has not finished."""
  if state.state == FINISHED:
    names = shown_metrics(folder.sweep.program, list(state.metrics), ())
    return ", ".join(f"{name} {state.metrics[name]:.4g}" for name in names[:3])
  return f"exit code {state.exit_code}" + f": {state.message}" * bool(state.message)
