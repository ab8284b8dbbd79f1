"""One process at a time in a folder, such as a training run in its workdir."""

import contextlib
import errno
import fcntl
import os
import socket
import warnings
from collections.abc import Generator
from pathlib import Path

LOCK_FILE = "lock"

# What two training runs would do, and how to go on.
_BUSY = (
  "two runs in one folder would overwrite each other's metrics and checkpoints. Wait for that run, "
  "or give another --workdir"
)
_TRIES = 1000  # limit for a folder that cannot be made, such as one in a broken link
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextlib.contextmanager
def exclusive(workdir: Path, *, busy: str = _BUSY) -> Generator[int]:
  """Locks the workdir against other runs, makes it if it does not exist, and yields the lock.

  The lock is the operating system's lock of a file in it (flock), which ends with the process,
  however that ends: a lock file that is left behind stops no run. The lock is a file descriptor; a
  child that inherits it holds the lock as well. Readers such as experiments/export.py take no lock.
  Raises ValueError that names the process that holds the workdir and ends with `busy`. On a file
  system without such locks it warns, and goes on.
  """
  new = not workdir.exists()
  path = workdir / LOCK_FILE
  file = _locked(path, busy)
  try:
    os.ftruncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    yield file
  finally:
    path.unlink(missing_ok=True)
    os.close(file)
    if new:
      with contextlib.suppress(OSError):
        workdir.rmdir()  # empty after a run that failed before it wrote anything


def _locked(path: Path, busy: str) -> int:
  """Opens and locks the file at `path`, and returns its descriptor."""
  tries = 0
  while True:
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except (FileExistsError, FileNotFoundError):
      # A run that failed has removed its empty folder, and another may have made it again since.
      tries += 1
      if tries == _TRIES:
        raise
      continue
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = os.pread(file, 200, 0).decode("utf-8", "replace") or "another process"
      os.close(file)
      raise ValueError(f"the folder {str(path.parent)!r} is in use by {holder}: {busy}") from None
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        os.close(file)
        raise
      warnings.warn(
        f"{path} cannot be locked ({error}): start no second run in that folder", stacklevel=4
      )
    # The last holder may have removed the file after it was opened here: then this lock is useless.
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(file), os.stat(path)):
        return file
    os.close(file)
