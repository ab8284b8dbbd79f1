"""The runs of a sweep on this machine, several at a time."""

import subprocess
import time
from collections.abc import Callable, Mapping

from mtjax.cli.sweep.display import Display
from mtjax.cli.sweep.folder import FINISHED, Folder
from mtjax.cli.sweep.process import Process, start

_POLL = 0.1
_GRACE = 60.0  # time in which a run that is told to end may save


def run_local(folder: Folder, workers: int, display: Display, write: Callable[[], None]) -> None:
  """Runs what has not finished, `workers` processes at a time, in the order of the sweep.

  `write` is called whenever a run has ended. A run that another launcher runs, or one that was left
  behind by a launcher that was killed, takes the place of a worker until it ends; then it is run
  here if it has not finished. Whatever ends this call ends the runs first, so that they save.
  """
  waiting = [i for i in range(len(folder.sweep.runs)) if folder.state(i).state != FINISHED]
  active: dict[int, Process] = {}
  try:
    while waiting or active:
      _fill(folder, workers, waiting, active, display)
      for index in [i for i, one in active.items() if one.process.poll() is not None]:
        display.ended(index, active.pop(index).finish())
        write()
      display.update({index: one.seconds() for index, one in active.items()})
      if active or waiting:
        time.sleep(_POLL)
  finally:
    if active:
      _end(active, display)
      write()


def _fill(folder, workers, waiting: list[int], active: dict[int, Process], display) -> None:
  elsewhere = 0
  for index in list(waiting):
    if len(active) + elsewhere >= workers:
      return
    try:
      process = start(folder, index)
    except ValueError as error:
      elsewhere += 1
      display.elsewhere(index, str(error))
      continue
    waiting.remove(index)
    if process is not None:
      active[index] = process
      display.began(index)


def _end(active: Mapping[int, Process], display: Display) -> None:
  """Tells runs to end, waits until they have saved, and writes their states."""
  display.ending(len(active))
  for one in active.values():
    one.process.terminate()
  deadline = time.monotonic() + _GRACE
  try:
    for one in active.values():
      one.process.wait(max(deadline - time.monotonic(), 0))
  except (subprocess.TimeoutExpired, KeyboardInterrupt):
    for one in active.values():
      one.process.kill()
  for index, one in active.items():
    display.ended(index, one.finish())
