"""Launchers in forks of one process that has imported JAX, which takes seconds in each new process.

A fork is a process as any other: it has its own arguments, environment, input, output and exit
code, and compiles its own programs. Only its modules are not taken apart at its end, for which it
would copy all that it shares: a tenth of a second. The process that forks touches no JAX backend,
so it has no threads that a fork would lack. It has imported the packages of the library too, but no
launcher and nothing of mtjax.cli, where flags are defined. What a launcher imports itself is seen
by `launch_alone` of tests/test_launchers.py, which starts each launcher once in a process of its
own.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tests.source import ROOT

# Whatever most launchers import.
_PACKAGES = (
  "jax",
  "flax.linen",
  "optax",
  "ml_collections.config_flags",
  "mtjax.text",
  "mtjax.anysubset",
  "mtjax.diffusion",
  "mtjax.planning",
  "mtjax.train",
)
_SECONDS = 600


def launch(
  *arguments: str, text: str = "", meanwhile: Callable[[int], object] | None = None
) -> tuple[int, str, str]:
  """Runs `python -m ARGUMENTS` with `text` as its input; returns (exit code, stdout, stderr).

  meanwhile: called with the id of the process while it runs; what it raises ends the process.
  """
  server = _server()
  with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "stdin").write_text(text)
    server.stdin.write(json.dumps([arguments, dict(os.environ), folder]) + "\n")
    server.stdin.flush()
    number = int(server.stdout.readline())
    try:
      if meanwhile is not None:
        meanwhile(number)
    except BaseException:
      with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)
      raise
    finally:
      code = server.stdout.readline()
    shown, errors = ((Path(folder) / name).read_text() for name in ("stdout", "stderr"))
  return int(code), shown, errors


@functools.cache
def _server() -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "-m", "tests.forked"],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


def _serve() -> None:
  """Forks for every line of the input, and prints the process id and then the exit code."""
  for package in _PACKAGES:
    importlib.import_module(package)
  gc.freeze()
  # The end of the input is the end of the tests.
  for line in sys.stdin:
    arguments, environment, folder = json.loads(line)
    child = os.fork()
    if not child:
      _become(arguments, environment, Path(folder))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(arguments: list[str], environment: dict[str, str], folder: Path) -> NoReturn:
  signal.alarm(_SECONDS)
  for number, name in enumerate(("stdin", "stdout", "stderr")):
    file = os.open(folder / name, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY)
    os.dup2(file, number)
    os.close(file)
  # The object that there is holds what the server reads.
  sys.stdin = open(0, closefd=False)
  os.environ.clear()
  os.environ.update(environment | {"PYTHONPATH": str(ROOT)})
  module, *sys.argv[1:] = arguments
  code = _run(module)
  threading._shutdown()
  atexit._run_exitfuncs()
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  os._exit(code)


def _run(module: str) -> int:
  """Returns the exit code of `python -m MODULE`."""
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  except SystemExit as end:
    if end.code is None or isinstance(end.code, int):
      return end.code or 0
    print(end.code, file=sys.stderr)
    return 1
  except BaseException:
    sys.excepthook(*sys.exc_info())
    return 1
  return 0


if __name__ == "__main__":
  _serve()
