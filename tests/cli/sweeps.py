"""What the tests of sweeps share: a fast program, and the launcher in this or another process."""

import os
import subprocess
import sys
import time
from pathlib import Path

from mtjax.cli.sweep import launcher
from mtjax.cli.sweep.programs import PROGRAMS, SweptProgram, _counters
from tests.source import ROOT

FILE = """
from mtjax.cli.sweep.combinations import product

PROGRAM = "sum"

def sweep():
  return product({"x": [1, 2, 3]})
"""

# Other processes register the program when Python starts.
_STARTUP = "from tests.cli.sweeps import register\nregister()\n"


def register() -> None:
  PROGRAMS["sum"] = SweptProgram(
    "tests.cli.sum_program", "output", "output.json", _counters, ("sum",), seed="seed"
  )


def launch(*arguments: str) -> int:
  """Runs the launcher in this process; returns its exit code."""
  place = arguments.index("--") if "--" in arguments else len(arguments)
  for name in launcher.VALUES:
    launcher.VALUES[name].unparse()
  launcher.VALUES(["sweep", *arguments[:place]])
  return launcher.run(list(arguments[place + 1 :]))


def environment(folder: Path) -> dict[str, str]:
  """Returns the environment of another process in which the program is registered."""
  startup = folder / "startup"
  startup.mkdir(exist_ok=True)
  (startup / "sitecustomize.py").write_text(_STARTUP)
  paths = [str(startup), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
  return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def started(folder: Path, *arguments: str) -> subprocess.Popen:
  """Starts the launcher in another process."""
  return subprocess.Popen(
    [sys.executable, "-m", "experiments.sweep", *arguments],
    cwd=ROOT,
    env=environment(folder),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_for(condition, seconds: float = 60.0) -> None:
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, "it did not come"
    time.sleep(0.02)
