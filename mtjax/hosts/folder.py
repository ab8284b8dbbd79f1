"""A folder that all processes of a job use, and that no other job may use meanwhile."""

import contextlib
import secrets
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from pathlib import Path

from mtjax.hosts.agreement import of_first, together
from mtjax.hosts.who import count, is_first

_SECONDS = 10  # limit for a network file system to show a new file


@contextlib.contextmanager
def held_by_first(folder: Path, lock: AbstractContextManager) -> Generator[None]:
  """Enters `lock` in process 0 alone, and checks that every process sees the same folder.

  Raises ValueError in every process if process 0 cannot lock it, or if another does not see it.
  """
  with contextlib.ExitStack() as stack:
    with together(f"locking {str(folder)!r}"):
      if is_first():
        stack.enter_context(lock)
    if count() > 1:
      _check_shared(folder)
    yield


def _check_shared(folder: Path) -> None:
  mark = folder / f"hosts-{of_first(secrets.token_hex(8))}"
  with together("writing to the shared folder"):
    if is_first():
      mark.touch()
  try:
    with together("looking for the shared folder"):
      deadline = time.monotonic() + _SECONDS
      while not mark.exists():
        if time.monotonic() > deadline:
          raise ValueError(
            f"{str(folder)!r} is not the folder of that name of process 0: every process needs the "
            "same one, on a file system that all of them share"
          )
        time.sleep(0.05)
  finally:
    if is_first():
      mark.unlink(missing_ok=True)
