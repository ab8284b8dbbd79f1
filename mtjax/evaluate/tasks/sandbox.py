"""Runs a Python program that nobody has read, with limits, and says whether it came to its end."""

import contextlib
import dataclasses
import enum
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

from mtjax.evaluate.tasks import sandbox_child

_CHILD = Path(sandbox_child.__file__)


class ProgramResult(enum.StrEnum):
  PASSED = "passed"
  FAILED = "failed"  # an exception, an exit before the end, or a crash
  TIMED_OUT = "timed out"
  OUT_OF_MEMORY = "out of memory"


@dataclasses.dataclass(frozen=True)
class SandboxLimits:
  """Of one program. It may start no thread and no process, and gets no input."""

  seconds: float = 5.0  # on the clock, and rounded up of a processor
  memory: int = 512 << 20  # bytes of address space, Python's own among them
  file: int = 1 << 20  # bytes of a file that it writes
  disk: int = 64 << 20  # bytes of all its files; 4096 for each counts as well

  def __post_init__(self):
    if not self.seconds > 0 or self.memory < 1 or self.file < 0 or self.disk < 1:
      raise ValueError(f"a limit is above 0, got {self}")


def run_program(program: str, limits: SandboxLimits = SandboxLimits()) -> ProgramResult:
  """PASSED if the whole program ran: an exit by itself, even with code 0, is FAILED.

  The program runs in a process of its own (`python -I -S`: the standard library and nothing else),
  in a new empty folder that is removed afterwards, without input, output or the variables of this
  one; its process group is killed at the end. Where the system allows it, the folder is a file
  system in memory, there is no network, and for root the program is the user nobody, who may read
  what root may. Elsewhere `disk` is no limit.

  PASSED takes a token of 128 random bits that the process hands back after the program's end, so
  that no exit code, no output and nothing written to any descriptor stands for it. While the
  program runs the token is in no file, variable, argument or descriptor of the process. It is in
  its memory, and in this one's.

  This holds back mistakes: loops, forks, a file that grows, an exit in place of a result. It is no
  security boundary: what a program means to read on this machine it can read, and it may write in
  other folders, where that stays. One that searches its own memory for the token (ctypes,
  /proc/self/mem) or makes the interpreter continue elsewhere (a trace function of the frames below
  its own) can pretend to have passed. Not started as root, it may read this process, remove files
  and end processes that are this user's. Code from somebody hostile belongs into a container or a
  virtual machine, with its results judged outside of it. Made for Linux: macOS does not limit the
  address space.
  """
  folder = tempfile.mkdtemp(prefix="program-")
  token = secrets.token_bytes(16)
  said, result = os.pipe()
  try:
    file, inside = Path(folder, "program.py"), Path(folder, "inside")
    # A lone surrogate is no text of a program; it fails there, not here.
    file.write_text(program, encoding="utf-8", errors="surrogatepass")
    inside.mkdir()
    inside.chmod(0o777)
    os.chmod(folder, 0o711)
    numbers = (result, math.ceil(limits.seconds), limits.memory, limits.file, limits.disk)
    process = subprocess.Popen(
      [sys.executable, "-I", "-S", str(_CHILD), str(file), *map(str, numbers)],
      cwd=inside,
      env={},
      stdin=subprocess.PIPE,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      pass_fds=[result],
      start_new_session=True,
    )
    try:
      process.communicate(token, limits.seconds)
    except subprocess.TimeoutExpired:
      return ProgramResult.TIMED_OUT
    finally:
      _kill(process)
    return _outcome(process.returncode, _read(said) == token)
  finally:
    os.close(said)
    os.close(result)
    # Many folders take longer to remove than to make: what is left is removed beside.
    removing = threading.Thread(target=_remove, args=[folder])
    removing.start()
    removing.join(limits.seconds)


def _read(said: int) -> bytes:
  """What stands in the pipe, a little more than a token at most; it does not wait."""
  os.set_blocking(said, False)
  try:
    return os.read(said, 64)
  except BlockingIOError:
    return b""


def _kill(process: subprocess.Popen) -> None:
  """The group: what the program may have started, too."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except (ProcessLookupError, PermissionError):
    pass  # nobody is left of it
  process.wait()


def _remove(folder: str) -> None:
  """Everything in it, and it; what cannot be removed stays.

  Folders may be nested deeper than Python recurses (`shutil.rmtree` does, up to 3.12) and than a
  path is long: each is moved up to the top before what is in it is looked at.
  """
  if os.path.islink(folder):
    return  # the program's doing: what it points to is not ours
  with contextlib.suppress(OSError):
    os.chmod(folder, 0o700)
  waiting = [folder]
  while waiting:
    inner = waiting.pop()
    for entry in _entries(inner):
      # Each by itself: what cannot be removed keeps nothing else.
      with contextlib.suppress(OSError):
        if entry.is_dir(follow_symlinks=False):
          top = os.path.join(folder, uuid.uuid4().hex)
          os.chmod(entry.path, 0o700)
          os.rename(entry.path, top)
          waiting.append(top)
        else:
          os.unlink(entry.path)
    if inner != folder:
      with contextlib.suppress(OSError):
        os.rmdir(inner)
  with contextlib.suppress(OSError):
    os.rmdir(folder)


def _entries(folder: str) -> list[os.DirEntry[str]]:
  with contextlib.suppress(OSError), os.scandir(folder) as found:
    return list(found)
  return []


def _outcome(code: int, passed: bool) -> ProgramResult:
  if passed:
    return ProgramResult.PASSED
  if code == sandbox_child.OUT_OF_MEMORY:
    return ProgramResult.OUT_OF_MEMORY
  return ProgramResult.TIMED_OUT if code == -signal.SIGXCPU else ProgramResult.FAILED
