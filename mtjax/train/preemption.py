"""SIGTERM in a training run: before the first step it ends at once, later it saves and ends."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator

from jax.experimental import multihost_utils

from mtjax import hosts

PREEMPTED_EXIT = 42

_leaving = threading.Lock()


class Preemption:
  """A record of SIGTERM: until `started` is called, the signal ends the process instead."""

  def __init__(self):
    self._running = False
    self._came = threading.Event()

  def started(self) -> None:
    """Notes that there is something to save: from now on SIGTERM is recorded."""
    self._running = True

  def is_set(self, step: int) -> bool:
    """Returns whether to end after `step`, which is called once per step."""
    return self._came.is_set()

  def came(self) -> None:
    if not self._running:
      _leave()
    self._came.set()


class JobPreemption(Preemption):
  """SIGTERM in any process of a job: all of them end after the same step.

  JAX's runtime notes the signal, tells the other processes, and chooses the step. A signal before
  the first step is noted too, and ends the run after the steps that all processes still reach.
  """

  def is_set(self, step: int) -> bool:
    return multihost_utils.reached_preemption_sync_point(step)


@contextlib.contextmanager
def on_sigterm() -> Generator[Preemption]:
  """Yields a Preemption that notices SIGTERM, if it is called in the main thread.

  Python runs a signal's handler between two instructions of the main thread, which compilation may
  delay for minutes. So a thread listens as well, and a run that has not begun ends at once.
  """
  if hosts.count() > 1:
    yield JobPreemption()
    return
  stop = Preemption()
  if threading.current_thread() is not threading.main_thread():
    yield stop
    return
  before = signal.signal(signal.SIGTERM, lambda *_: stop.came())
  try:
    with _listening(stop):
      yield stop
  finally:
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextlib.contextmanager
def _listening(stop: Preemption) -> Generator[None]:
  """Runs a thread that notices signals as they come, unless an event loop has its own."""
  read, write = os.pipe()
  os.set_blocking(write, False)
  before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  if before >= 0:
    signal.set_wakeup_fd(before)

  def listen():
    while number := os.read(read, 1):
      if number[0] == signal.SIGTERM:
        stop.came()

  thread = threading.Thread(target=listen, daemon=True)
  thread.start()
  try:
    yield
  finally:
    if before < 0:
      signal.set_wakeup_fd(-1)
    os.close(write)
    thread.join()
    os.close(read)


def _leave() -> None:
  """Ends the process. Before its first step, a run's files are complete at every moment."""
  show_cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a progress bar hides it
  text = "SIGTERM before a training step: there is nothing to save, the same command starts again"
  if _leaving.acquire(blocking=False):  # the thread and the handler both come here
    os.write(2, f"{show_cursor}mtjax: {text}\n".encode())
    os._exit(PREEMPTED_EXIT)
