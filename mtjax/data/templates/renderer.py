"""Renders templates in a process, which, unlike a thread, can be limited and ended."""

import atexit
import contextlib
import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

_CHILD = Path(__file__).parent / "child.py"
_START_SECONDS = 60.0  # limit for loading Python and jinja2 on a busy machine


@dataclasses.dataclass(frozen=True)
class RenderLimits:
  """The limits of rendering a template, far above what is needed (milliseconds, a few MB)."""

  seconds: float = 5.0  # of wall-clock time
  memory: int = 1 << 30  # bytes of address space, including Python's own; Linux only
  characters: int = 1 << 24  # largest length of the text


LIMITS = RenderLimits()


class Unrenderable(Exception):
  """The error for a template that fails or exceeds a limit; it says why, not which template."""


class Renderer:
  """A process that renders templates one after the other, and starts with the first one.

  A template can express a loop, or a number or text of any size, in a few characters. To count
  steps in this process would not limit it: one step may take hours or all memory (such as printing
  a list that holds itself twice, sixty levels deep). So it runs in a process of its own, which is
  ended at a limit and started again for the next template. The start takes about 0.1 s, a template
  less than 1 ms.
  """

  def __init__(self, limits: RenderLimits = LIMITS):
    self._limits = limits
    self._lock = threading.Lock()
    self._process: subprocess.Popen | None = None

  def render(self, template: str, variables: Mapping[str, Any]) -> str:
    """Returns the text. Raises Unrenderable, and RuntimeError if no process can be started.

    `variables` must be values that JSON can express; the template sees nothing else of this
    process.
    """
    try:
      request = json.dumps(dict(template=template, variables=variables)).encode()
    except (TypeError, ValueError, RecursionError) as error:
      raise Unrenderable(f"messages and variables must be JSON values: {error}") from None
    with self._lock:
      try:
        reply = self._reply(request)
      except BaseException:
        self.close()  # otherwise a late answer would be read as that of the next template
        raise
    if "text" not in reply:
      raise Unrenderable(reply["error"])
    return reply["text"]

  def close(self) -> None:
    """Ends the process, if there is one."""
    process, self._process = self._process, None
    if process is None:
      return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
      with contextlib.suppress(OSError):
        pipe.close()

  def _reply(self, request: bytes) -> dict[str, Any]:
    if self._process is None or self._process.poll() is not None:
      self.close()
      self._process = self._started()
    process = self._process
    with _killed_after(self._limits.seconds, process) as is_late:
      line = _exchange(process, request)
    if not line.endswith(b"\n"):
      why = f"it took more than {self._limits.seconds:g} s" if is_late() else "its process ended"
      raise Unrenderable(why)
    return json.loads(line)

  def _started(self) -> subprocess.Popen:
    # -S, because sys.path is passed on and need not be computed again.
    paths = os.pathsep.join(filter(None, sys.path))
    limits = self._limits
    settings = (math.ceil(2 * limits.seconds), limits.memory, limits.characters)
    try:
      process = subprocess.Popen(
        [sys.executable, "-P", "-S", str(_CHILD), *map(str, settings)],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
      )
    except (OSError, TypeError) as error:  # TypeError: this Python has no name
      raise RuntimeError(f"no process for chat templates could be started: {error}") from None
    with _killed_after(_START_SECONDS, process):
      line = process.stdout.readline()
    if line != b"ready\n":
      process.kill()
      process.wait()
      raise RuntimeError(f"no process for chat templates could be started with {sys.executable!r}")
    return process


@functools.cache
def _renderer(pid: int) -> Renderer:
  del pid
  started = Renderer()
  atexit.register(started.close)
  return started


def renderer() -> Renderer:
  """Returns the renderer of this process; a forked process has one of its own."""
  return _renderer(os.getpid())


@contextlib.contextmanager
def _killed_after(seconds: float, process: subprocess.Popen) -> Generator[Callable[[], bool]]:
  """Ends `process` if the block takes longer; yields a function that says whether it did."""
  late = threading.Event()

  def end():
    late.set()
    process.kill()

  timer = threading.Timer(seconds, end)
  timer.daemon = True
  timer.start()
  try:
    yield late.is_set
  finally:
    timer.cancel()


def _exchange(process: subprocess.Popen, request: bytes) -> bytes:
  """Returns the line that answers `request`, without its line end if the process ended."""
  try:
    process.stdin.write(request + b"\n")
    process.stdin.flush()
    return process.stdout.readline()
  except BrokenPipeError:
    return b""
