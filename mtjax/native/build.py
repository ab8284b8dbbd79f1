"""Compiles the C++ code beside this file once per machine, loads it and registers it with XLA."""

import contextlib
import ctypes
import functools
import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path

import jax

_SOURCES = Path(__file__).resolve().parent
_FLAGS = (
  *("-std=gnu++17", "-O3", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"),
  *("-fno-exceptions", "-fno-rtti"),  # less to compile
)
_COMPILERS = ("c++", "g++", "clang++")
_NO_COMPILER = (
  f"no C++ compiler on PATH (looked for {', '.join(_COMPILERS)}); install one, for example with "
  "`apt-get install g++`, or set CXX"
)
TARGET = "mtjax_panel_matmul"
ATTENTION = "mtjax_attention"
# A second thread waits for what the first one compiles.
_BUILDING = threading.Lock()
_HOUR = 3600


class Unavailable(RuntimeError):
  """The error that the native code cannot be used here; the message says why."""


@functools.cache
def library() -> ctypes.CDLL:
  """Returns the loaded library, with its XLA targets registered.

  MTJAX_NATIVE=off switches it off; CXX names the compiler; MTJAX_NATIVE_THREADS is the number of
  threads (default: the CPUs that this process may use, at most 16). Raises Unavailable, with the
  reason, if there is no library.
  """
  if reason := hindrance():
    raise Unavailable(reason)
  threads = _threads()
  path = build()
  try:
    lib = ctypes.CDLL(str(path))
  except OSError as error:
    raise Unavailable(f"{path} does not load: {error}; delete it, and it is built again") from error
  lib.mtjax_set_threads.argtypes = [ctypes.c_int]
  lib.mtjax_read.argtypes = [ctypes.c_void_p, ctypes.c_int64]
  lib.mtjax_read.restype = ctypes.c_int64
  lib.mtjax_set_threads(threads)
  for target in (TARGET, ATTENTION):
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(lib, target)), platform="cpu")
  return lib


def hindrance() -> str | None:
  """Returns the reason why there can be no library, if it is known before the compiler has run."""
  if os.environ.get("MTJAX_NATIVE") == "off":
    return "it is switched off by MTJAX_NATIVE=off"
  if _compiler() is None and not _path().exists():
    return _NO_COMPILER
  return None


@functools.cache
def unavailable() -> str | None:
  """Returns None if `library()` works, and else the reason. The compiler runs once per process."""
  try:
    library()
  except Unavailable as error:
    return str(error)
  return None


def set_threads(threads: int) -> None:
  """Sets the number of threads of every later call in this process, with the caller's own."""
  if threads < 1:
    raise ValueError(f"threads must be at least 1 (the caller's own), got {threads}")
  library().mtjax_set_threads(threads)


def threads() -> int:
  """Returns the number of threads that calls use."""
  return library().mtjax_threads()


def start_building() -> None:
  """Begins to compile in the background what `library` will need, unless the cache has it.

  The compiler is a process of its own, so that weights are read and packed meanwhile.
  """
  if hindrance() is None:
    threading.Thread(target=_build_quietly, daemon=True).start()


def _build_quietly() -> None:
  # `library` says what is wrong.
  with contextlib.suppress(Unavailable):
    build()


def build() -> Path:
  """Returns the path of the shared library for this machine, compiled unless the cache has it.

  It is in $XDG_CACHE_HOME (or ~/.cache)/mtjax/native, named by a hash of sources, flags, CPU and
  jaxlib version. It is written under another name and renamed: of processes that build at once,
  each leaves a whole file, and one that is killed leaves none that counts.
  """
  with _BUILDING:
    return _built()


def _built() -> Path:
  path, compiler = _path(), _compiler()
  if path.exists():
    return path
  if compiler is None:
    raise Unavailable(_NO_COMPILER)
  home = path.parent
  try:
    home.mkdir(parents=True, exist_ok=True)
    _forget_interrupted(home)
    handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=home)
  except OSError as error:
    raise Unavailable(f"cannot write to {home}: {error}; set XDG_CACHE_HOME") from error
  os.close(handle)
  source = str(_SOURCES / "small_matmul.cc")
  command = [*compiler, *_flags(), f"-I{jax.ffi.include_dir()}", source, "-o", temporary]
  try:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
      errors = [line for line in run.stderr.splitlines() if "error" in line] or [run.stderr]
      raise Unavailable(f"{shlex.join(compiler)} failed: {errors[0].strip()[:300]}")
    os.chmod(temporary, 0o755)
    os.replace(temporary, path)
  except OSError as error:
    raise Unavailable(f"{shlex.join(compiler)} does not run: {error}") from error
  finally:
    Path(temporary).unlink(missing_ok=True)
  return path


def _forget_interrupted(home: Path) -> None:
  for file in home.glob("*.tmp"):
    # Another process may have deleted it.
    with contextlib.suppress(OSError):
      if time.time() - file.stat().st_mtime > _HOUR:
        file.unlink()


def user_cache() -> Path:
  """Returns the folder of what mtjax keeps for this user: $XDG_CACHE_HOME (or ~/.cache)/mtjax."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtjax"


def fingerprint() -> str:
  """Returns a hash of the native sources, the compiler's flags and this CPU."""
  return _key(_flags())


def _path() -> Path:
  return user_cache() / "native" / f"{fingerprint()}.so"


def _compiler() -> list[str] | None:
  command = shlex.split(os.environ.get("CXX", ""))
  if command:
    return command
  return next(([name] for name in _COMPILERS if shutil.which(name)), None)


def _flags() -> list[str]:
  # Compilers of 64-bit Arm spell "this machine" differently from those of x86.
  arm = platform.machine() in ("aarch64", "arm64")
  return [*_FLAGS, "-mcpu=native" if arm else "-march=native"]


def _key(flags: list[str]) -> str:
  """Returns a hash of everything that the machine code depends on."""
  digest = hashlib.sha256()
  for source in sorted([*_SOURCES.glob("*.cc"), *_SOURCES.glob("*.h")]):
    digest.update(source.read_bytes())
  for part in [*flags, *_cpu(), os.environ.get("CXX", ""), metadata.version("jaxlib")]:
    digest.update(part.encode() + b"\0")
  return digest.hexdigest()[:24]


def _cpu() -> list[str]:
  try:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:
    lines = []
  names = ("model name", "flags", "CPU part", "Features")
  first = {line.split(":")[0].strip(): line for line in reversed(lines) if line.startswith(names)}
  return [platform.machine(), platform.processor(), *sorted(first.values())]


def _threads() -> int:
  text = os.environ.get("MTJAX_NATIVE_THREADS")
  if text is None:
    return max(1, min(16, _usable_cpus()))
  if not text.isdigit() or int(text) < 1:
    raise ValueError(f"MTJAX_NATIVE_THREADS must be a whole number, at least 1, got {text!r}")
  return int(text)


def allowed_cores() -> int:
  """Returns the number of cores that this process may run on: those of its affinity mask.

  Where the system has no such masks, as on macOS, it is the number of all cores.
  """
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:
    return os.cpu_count() or 1


def _usable_cpus() -> int:
  """Returns the number of `allowed_cores`, or the container's share of CPUs if that is less."""
  cpus = allowed_cores()
  try:
    quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    cpus = min(cpus, math.ceil(int(quota) / int(period)))
  except (OSError, ValueError):
    pass
  return cpus
