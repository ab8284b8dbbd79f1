"""Launchers in forks of one process that has imported JAX, which takes seconds in each new process.

A fork is a process as any other: it has its own arguments, environment, input, output and exit
code, and compiles its own programs. The process that forks touches no JAX backend, so it has no
threads that a fork would lack. It has imported the packages of the library too, but no launcher and
nothing of mtjax.cli, where flags are defined. What a launcher imports itself is seen by
`launch_alone` of tests/test_launchers.py, which starts each launcher once in a process of its own.
"""

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
from pathlib import Path

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


def launch(*arguments: str, text: str = "") -> tuple[int, str, str]:
  """Runs `python -m ARGUMENTS` with `text` as its input; returns (exit code, stdout, stderr)."""
  server = _server()
  with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "stdin").write_text(text)
    server.stdin.write(json.dumps([arguments, dict(os.environ), folder]) + "\n")
    server.stdin.flush()
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
  """Forks for every line of the input, and prints the exit code; returns at its end."""
  for package in _PACKAGES:
    importlib.import_module(package)
  gc.freeze()
  # The end of the input is the end of the tests.
  for line in sys.stdin:
    arguments, environment, folder = json.loads(line)
    child = os.fork()
    if not child:
      _become(arguments, environment, Path(folder))
      return
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(arguments: list[str], environment: dict[str, str], folder: Path) -> None:
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
  # What it raises ends this process as it would end one of its own.
  runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
  _serve()
