"""One run of a sweep, as a process: its command, its log, how it ended."""

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from mtjax.cli.running import TERMINATED_EXIT
from mtjax.cli.sweep.folder import FAILED, FINISHED, RUNNING, STOPPED, Folder, State
from mtjax.cli.sweep.values import texts
from mtjax.train import PREEMPTED_EXIT

# A run that ended so was told to, and is no failure: it continues or starts again.
_TOLD = (PREEMPTED_EXIT, TERMINATED_EXIT, 130, -signal.SIGTERM, -signal.SIGINT)
_TAIL_BYTES = 8192


@dataclasses.dataclass(frozen=True)
class Process:
  """A run that has begun. `finish` must be called once it has ended."""

  folder: Folder
  index: int
  process: subprocess.Popen
  began: float
  before: State  # of the attempts before this one
  held: contextlib.ExitStack  # the lock of the run

  def seconds(self) -> float:
    return self.before.seconds + time.monotonic() - self.began

  def finish(self) -> State:
    """Writes and returns the state that the run has ended in."""
    code = self.process.wait()
    state = dataclasses.replace(
      self.before,
      state=FINISHED if code == 0 else STOPPED if code in _TOLD else FAILED,
      exit_code=code,
      attempts=self.before.attempts + 1,
      seconds=round(self.seconds(), 3),
      message="",
    )
    program = self.folder.sweep.program
    if code == 0:
      try:
        metrics = program.read(self.folder.run(self.index) / program.place)
        state = dataclasses.replace(state, metrics=metrics)
      except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"it ended well, but left no metrics: {type(error).__name__}: {error}"
        state = dataclasses.replace(state, state=FAILED, message=message)
    self.folder.set_state(self.index, state)
    self.held.close()
    return state


def start(folder: Folder, index: int) -> Process | None:
  """Starts a run; None if it has finished already. Raises ValueError if it runs elsewhere.

  The run is in a session of its own: Ctrl-C in a terminal reaches the launcher alone, which ends
  the run with SIGTERM, so that it saves. It inherits the lock: should the launcher be killed, then
  no other one starts the run again while it still goes on.
  """
  with contextlib.ExitStack() as stack:
    lock = stack.enter_context(folder.locked_run(index))
    before = folder.state(index)
    if before.state == FINISHED:
      return None
    words = command(folder, index)
    begun = dataclasses.replace(before, state=RUNNING, attempts=before.attempts + 1, message="")
    folder.set_state(index, begun)
    with folder.log(index).open("a", encoding="utf-8") as log:
      log.write(f"$ {shlex.join(words)}\n")
      log.flush()
      process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=[lock],
      )
    return Process(folder, index, process, time.monotonic(), before, stack.pop_all())


def command(folder: Folder, index: int) -> list[str]:
  """Returns the command of a run."""
  sweep, program = folder.sweep, folder.sweep.program
  known = program.flags()
  words = [sys.executable, "-m", program.module]
  if sweep.config is not None:
    words.append(f"--config={folder.path / 'config.py'}")
  for name, value in (sweep.flags | sweep.runs[index]).items():
    words += [f"--{name}={text}" for text in texts(known.get(name), value)]
  return [*words, f"--{program.output}={folder.run(index) / program.place}"]


def run_here(folder: Folder, index: int) -> State:
  """Runs one run to its end and returns its state. SIGTERM and Ctrl-C are passed on to it."""
  process = start(folder, index)
  if process is None:
    return folder.state(index)
  before = signal.signal(signal.SIGTERM, lambda *_: process.process.terminate())
  try:
    process.process.wait()
  except KeyboardInterrupt:
    process.process.terminate()
    raise
  finally:
    state = process.finish()
    signal.signal(signal.SIGTERM, before)
  return state


def last_lines(path: Path, count: int) -> list[str]:
  """Returns the last lines of a log that are not empty; none of a file that does not exist."""
  try:
    with path.open("rb") as file:
      file.seek(max(os.fstat(file.fileno()).st_size - _TAIL_BYTES, 0))
      text = file.read().decode("utf-8", "replace")
  except FileNotFoundError:
    return []
  return [line for line in text.splitlines() if line.strip()][-count:]
