"""Runs an unknown Python program with limits, and says if it ran to its end."""

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
  """The outcome of a program."""

  PASSED = "passed"
  FAILED = "failed"  # an exception, an exit before the end, or a crash
  TIMED_OUT = "timed out"
  OUT_OF_MEMORY = "out of memory"


@dataclasses.dataclass(frozen=True)
class SandboxLimits:
  """The limits of one program. It may start no thread and no process, and gets no input."""

  seconds: float = 5.0  # of wall-clock time, and (rounded up) of processor time
  memory: int = 512 << 20  # bytes of address space, including Python's own
  file: int = 1 << 20  # bytes per file that it writes
  disk: int = 64 << 20  # bytes of all its files together, with 4096 more for each

  def __post_init__(self):
    if not self.seconds > 0 or self.memory < 1 or self.file < 0 or self.disk < 1:
      raise ValueError(f"all limits must be above 0 (file: at least 0), got {self}")


def run_program(program: str, limits: SandboxLimits = SandboxLimits()) -> ProgramResult:
  """Returns PASSED if the whole program ran; if it exits by itself, even with code 0, FAILED.

  The program runs in a process of its own (`python -I -S`: the standard library and nothing else),
  in a new empty folder that is removed afterwards, without input, output or the variables of this
  process; its process group is killed at the end. Where the system allows it, the folder is a file
  system in memory, there is no network, and a program started by root runs as the user nobody, who
  may read what root may. Elsewhere `disk` is no limit.

  PASSED needs a token of 128 random bits that the process returns after the program's end, so that
  no exit code, no output and nothing written to any descriptor can replace it. While the program
  runs, the token is in no file, variable, argument or descriptor of the process. It is in its
  memory, and in the memory of this process.

  This protects from mistakes: loops, forks, a file that grows, an exit in place of a result. It is
  no security boundary: a program can read what it wants on this machine, and may write to other
  folders, where its files stay. One that searches its own memory for the token (ctypes,
  /proc/self/mem) or makes the interpreter continue elsewhere (a trace function of the frames below
  its own) can pretend to have passed. If it is not started as root, it may read this process, and
  remove files and end processes of this user. Hostile code belongs in a container or a virtual
  machine, with its results judged outside of it. This is made for Linux: macOS does not limit the
  address space.
  """
  folder = tempfile.mkdtemp(prefix="program-")
  token = secrets.token_bytes(16)
  answer, result = os.pipe()
  try:
    file, inside = Path(folder, "program.py"), Path(folder, "inside")
    # A lone surrogate is no text of a program: it must fail in the child, not here.
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
    return _outcome(process.returncode, _read(answer) == token)
  finally:
    os.close(answer)
    os.close(result)
    # Many folders take longer to remove than to make: a thread removes the rest later.
    removing = threading.Thread(target=_remove, args=[folder])
    removing.start()
    removing.join(limits.seconds)


def _read(pipe: int) -> bytes:
  """Returns what the pipe holds, up to a little more than a token, without waiting."""
  os.set_blocking(pipe, False)
  try:
    return os.read(pipe, 64)
  except BlockingIOError:
    return b""


def _kill(process: subprocess.Popen) -> None:
  """Kills the process group, with all that the program may have started."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except (ProcessLookupError, PermissionError):
    pass  # no process of it is left
  process.wait()


def _remove(folder: str) -> None:
  """Removes a folder with everything in it; what cannot be removed stays.

  Folders may be nested deeper than Python recurses (as `shutil.rmtree` does, up to 3.12) and than a
  path may be long: each is moved to the top before its entries are read.
  """
  if os.path.islink(folder):
    return  # the program replaced its folder by a link to something else, which is not ours
  with contextlib.suppress(OSError):
    os.chmod(folder, 0o700)
  waiting = [folder]
  while waiting:
    inner = waiting.pop()
    for entry in _entries(inner):
      # Each entry by itself: one that cannot be removed does not keep the others.
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
  with contextlib.suppress(OSError), os.scandir(folder) as entries:
    return list(entries)
  return []


def _outcome(code: int, passed: bool) -> ProgramResult:
  if passed:
    return ProgramResult.PASSED
  if code == sandbox_child.OUT_OF_MEMORY:
    return ProgramResult.OUT_OF_MEMORY
  return ProgramResult.TIMED_OUT if code == -signal.SIGXCPU else ProgramResult.FAILED
