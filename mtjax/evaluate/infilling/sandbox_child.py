"""The inner side of `sandbox`: sets the limits, then runs the program. Standard library only."""

import os
import sys

# Exit codes that a program does not have by accident: 0 and 1 would be ambiguous.
PASSED, FAILED, OUT_OF_MEMORY = 81, 82, 83

_NOBODY = 65534
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # unshare(2)
_KEEP_CAPABILITIES = 8  # prctl(2)
_CAPABILITIES_VERSION = 0x20080522  # capset(2)
_READ_ANYTHING = 1 << 2  # CAP_DAC_READ_SEARCH


def main(path: str, seconds: int, memory: int, file: int) -> int:
  with open(path, encoding="utf-8", errors="surrogatepass") as opened:
    program = opened.read()
  _leave_network()
  _leave_root()
  _limit(seconds, memory, file)
  try:
    exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})
  except MemoryError:
    return OUT_OF_MEMORY
  except BaseException:  # noqa: BLE001 - SystemExit among them: it left before its end
    return FAILED
  return PASSED


def _limit(seconds, memory, file):
  import resource

  wanted = dict(CPU=seconds, AS=memory, FSIZE=file, NPROC=0, CORE=0)
  for name, value in wanted.items():
    limit = getattr(resource, f"RLIMIT_{name}")
    most = resource.getrlimit(limit)[1]
    value = value if most == resource.RLIM_INFINITY else min(value, most - (name == "CPU"))
    # The processor's limit kills twice: what catches the first is stopped a second later.
    try:
      resource.setrlimit(limit, (value, value + 1 if name == "CPU" else value))
    except ValueError:
      if sys.platform == "linux":
        raise  # elsewhere not every limit can be set: macOS has none of address space


def _leave_network():
  """Best effort: only root, or a user who may make namespaces, can."""
  if sys.platform == "linux":
    _libc().unshare(_NEW_NETWORK | (0 if os.geteuid() == 0 else _NEW_USER))


def _leave_root():
  """Root is exempt from the limit of processes; nobody is not. Python's files stay readable."""
  if sys.platform != "linux" or os.geteuid() != 0:
    return
  import ctypes

  libc = _libc()
  libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
  try:
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
  except OSError:
    return  # a container that has no such user
  header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
  # Effective, permitted, inheritable; then the same of the upper 32 capabilities.
  libc.capset(header, (ctypes.c_uint32 * 6)(_READ_ANYTHING, _READ_ANYTHING, 0, 0, 0, 0))


def _libc():
  import ctypes

  return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
  # No clean-up at exit: what the program registered there is not run.
  os._exit(main(sys.argv[1], *map(int, sys.argv[2:])))
