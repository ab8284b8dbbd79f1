"""The inner side of `sandbox`: sets the limits, then runs the program. Standard library only.

Whether the program came to its end is said by a token that the outer side hands in on descriptor
0: written to `result` after the program, and nowhere else. The program shares this process, so
what it could find the token by is closed as far as that goes (see `main` and `_hide`).
"""

import gc
import os
import sys
import types

# Exit codes without the token: both are no pass.
FAILED, OUT_OF_MEMORY = 82, 83

_NOBODY = 65534
_NEW_NETWORK, _NEW_USER, _NEW_MOUNTS = 0x40000000, 0x10000000, 0x00020000  # unshare(2)
_PRIVATE, _RECURSIVE = 1 << 18, 1 << 14  # mount(2)
_NO_SETUID, _NO_DEVICES = 2, 4
_KEEP_CAPABILITIES = 8  # prctl(2)
_CAPABILITIES_VERSION = 0x20080522  # capset(2)
_READ_ANYTHING = 1 << 2  # CAP_DAC_READ_SEARCH


def main(path: str, result: int, seconds: int, memory: int, file: int, disk: int) -> int:
  with open(path, encoding="utf-8", errors="surrogatepass") as opened:
    program = opened.read()
  _leave_network_and_disk(disk)
  _leave_root()
  _limit(seconds, memory, file)
  names = _hide()
  try:
    code = compile(program, "program.py", "exec")
    # One expression: while the program runs the token is a value between two operations of this
    # frame, which no variable, container or descriptor holds. `os.write` is looked up before.
    os.write(result, os.read(0, 64) + (exec(code, names) or b""))
  except MemoryError:
    return OUT_OF_MEMORY
  except BaseException:  # noqa: BLE001 - SystemExit among them: it left before its end
    return FAILED
  return 0


def _hide() -> dict:
  """The names of a new __main__ for the program, in place of this file's."""
  # These show what a frame computes with, from Python 3.14 on even while it waits for a call.
  del gc.get_objects, gc.get_referents, gc.get_referrers
  sys.argv = ["program.py"]
  sys.modules["__main__"] = module = types.ModuleType("__main__")
  return module.__dict__


def _leave_network_and_disk(size: int):
  """Best effort: only root, or a user who may make namespaces, can.

  Its folder becomes a file system in memory, which ends with the process.
  """
  if sys.platform != "linux":
    return
  here, libc, user, group = os.getcwd(), _libc(), os.geteuid(), os.getegid()
  # At once: in a user namespace without a mapping of users there can be no second one.
  if libc.unshare(_NEW_NETWORK | _NEW_MOUNTS | (_NEW_USER if user else 0)):
    return
  try:
    if user:  # who has no number there can make no file
      maps = dict(setgroups="deny", uid_map=f"{user} {user} 1", gid_map=f"{group} {group} 1")
      for name, text in maps.items():
        with open(f"/proc/self/{name}", "w") as file:
          file.write(text)
  except OSError:
    return
  # What is mounted here is not seen outside.
  libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
  options = f"size={size},nr_inodes={max(size // 4096, 16)},mode=777".encode()
  libc.mount(b"program", os.fsencode(here), b"tmpfs", _NO_SETUID | _NO_DEVICES, options)
  os.chdir(here)


def _limit(seconds, memory, file):
  import resource

  wanted = dict(CPU=seconds, AS=memory, FSIZE=file, NPROC=0, CORE=0)
  for name, value in wanted.items():
    limit = getattr(resource, f"RLIMIT_{name}")
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard - (name == "CPU"))
    # The processor's limit kills twice: what catches the first is stopped a second later.
    try:
      resource.setrlimit(limit, (value, value + 1 if name == "CPU" else value))
    except ValueError:
      if sys.platform == "linux":
        raise  # elsewhere not every limit can be set: macOS has none of address space


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
