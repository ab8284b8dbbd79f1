"""Progress and partial results of long runs: a line for each stage, JSON of what is measured."""

import contextlib
import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mtjax.cli.hosts import once

Record = Mapping[str, Any]
Progress = Callable[[str], None]
TERMINATED_EXIT = 128 + signal.SIGTERM


def progress(text: str) -> None:
  """Prints what runs now on a line of stderr, in a log as on a terminal."""
  if once.writes_here():
    print(text, file=sys.stderr, flush=True)


def seldom(
  tell: Progress, *, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
) -> Progress:
  """Returns a `tell` for the small steps of a stage: the first, then one every `seconds`."""
  last = clock() - seconds

  def maybe(text: str) -> None:
    nonlocal last
    if clock() - last >= seconds:
      last = clock()
      tell(text)

  return maybe


@contextlib.contextmanager
def results_file(
  path: str | None, *, dump: Callable[[Record], str] = functools.partial(json.dumps, indent=2)
) -> Generator[Callable[[Record], None]]:
  """Yields `write(record)`, to be called with all there is whenever a part is finished.

  The file is replaced whole each time, so whatever ends the run leaves the JSON of the last record.
  Its field "complete" is true once the block has ended without an exception. SIGTERM is an
  exception here, of exit code 143: folders and processes of the run are cleared away. Like Ctrl-C
  it waits for what XLA is doing. Nothing is written before the first record; None writes nothing at
  all, as does a process of several that is not the first. What is no regular file, as /dev/stdout,
  gets the last record alone.
  """
  last: Record | None = None
  target = None if path is None or not once.writes_here() else Path(path).resolve()
  file = target if target is None or target.is_file() or not target.exists() else None

  def write(record: Record) -> None:
    nonlocal last
    last = record
    if file is not None:
      _replace(file, dump(dict(complete=False, **record)))

  try:
    with _sigterm_raises():
      yield write
  except BaseException:
    if file is not None and last is not None:
      print(f"mtjax: {path} holds what was finished before this", file=sys.stderr)
    raise
  if target is None or last is None:
    return
  text = dump(dict(complete=True, **last))
  if file is None:
    target.write_text(text, encoding="utf-8")
  else:
    _replace(file, text)


def _replace(path: Path, text: str) -> None:
  new = path.with_name(f".{path.name}.{os.getpid()}.new")
  try:
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
  except BaseException:
    new.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def _sigterm_raises() -> Generator[None]:
  """SIGTERM becomes SystemExit, where it would have ended the process as it is."""
  is_main = threading.current_thread() is threading.main_thread()
  if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
    yield
    return

  def leave(*_) -> NoReturn:
    print("mtjax: SIGTERM", file=sys.stderr)
    sys.exit(TERMINATED_EXIT)

  signal.signal(signal.SIGTERM, leave)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
