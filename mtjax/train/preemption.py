"""SIGTERM to a training run: before its first step it ends at once, later it saves and ends."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator

PREEMPTED_EXIT = 42

_leaving = threading.Lock()


class Preemption:
  """Whether SIGTERM came since the first step; until `started` is called, it ends the process."""

  def __init__(self):
    self._running = False
    self._came = threading.Event()

  def started(self) -> None:
    """From now on there is something to save, and SIGTERM waits for it."""
    self._running = True

  def is_set(self) -> bool:
    return self._came.is_set()

  def came(self) -> None:
    if not self._running:
      _leave()
    self._came.set()


@contextlib.contextmanager
def on_sigterm() -> Generator[Preemption]:
  """A Preemption that hears of SIGTERM. Signals are the main thread's: in another it hears nothing.

  Python runs a signal's handler between two instructions of the main thread, which compilation may
  hold back for minutes. So a thread listens as well, and a run that has not begun ends at once.
  """
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
  """A thread that learns of signals as they come, unless an event loop has its own."""
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
  """Ends the process: what a run keeps is whole at every moment before its first step."""
  show_cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a progress bar hides it
  told = "SIGTERM before a training step: there is nothing to save, the same command starts again"
  if _leaving.acquire(blocking=False):  # the thread and the handler both come here
    os.write(2, f"{show_cursor}mtjax: {told}\n".encode())
    os._exit(PREEMPTED_EXIT)
