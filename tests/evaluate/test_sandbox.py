"""The sandbox: what a program does there, and what it cannot do."""

import os
import sys
import time

import pytest

from mtjax.evaluate.infilling.sandbox import Limits, Outcome, run_program

SHORT = Limits(seconds=2.0)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="no limit of memory: run it on Linux")


@pytest.mark.parametrize(
  ("program", "outcome"),
  [
    ("import math\nassert math.gcd(4, 6) == 2", Outcome.PASSED),
    ("assert 1 == 2", Outcome.FAILED),
    ("def f(:", Outcome.FAILED),
    ("raise SystemExit(0)", Outcome.FAILED),
    ("import os\nos._exit(0)", Outcome.FAILED),
    ("import ctypes\nctypes.string_at(0)", Outcome.FAILED),
    ("\ud800", Outcome.FAILED),
    ("import numpy", Outcome.FAILED),
    pytest.param("x = [0]\nwhile True:\n  x = x + x", Outcome.OUT_OF_MEMORY, marks=LINUX),
    ("input()", Outcome.FAILED),
    ("import os\nassert os.listdir() == [] and 'HOME' not in os.environ", Outcome.PASSED),
    ("print('flood' * 10**7)", Outcome.PASSED),
    ("open('mine', 'w').write('few')", Outcome.PASSED),
    ("with open('mine', 'w') as f:\n  f.write('x' * (2 << 20))", Outcome.FAILED),
    ("import os\nos.fork()", Outcome.FAILED),
    ("import threading\nthreading.Thread(target=print).start()", Outcome.FAILED),
    ("import atexit, time\natexit.register(time.sleep, 60)", Outcome.PASSED),
  ],
)
def test_a_program_has_an_outcome(program, outcome):
  assert run_program(program, SHORT) == outcome


@pytest.mark.parametrize(
  "program",
  [
    "while True: pass",
    "import time\ntime.sleep(60)",
    "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
    "while True: print('flood')",
    # A bomb that would live on if it could: what it starts waits, so that it is no harm if it can.
    "import os, time\nfor _ in range(20):\n  try:\n    os.fork() or time.sleep(60)\n"
    "  except OSError: time.sleep(60)",
  ],
)
def test_what_does_not_end_is_killed(program):
  begin = time.monotonic()
  assert run_program(program, Limits(seconds=0.5)) == Outcome.TIMED_OUT
  assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
  "program",
  [
    "open('mine', 'w').write('x')",
    # Deeper than Python recurses and than a path is long.
    "import os\nfor _ in range(3000):\n  os.mkdir('d')\n  os.chdir('d')\nopen('mine', 'w')",
    "import os\nos.makedirs('a/b')\nos.chmod('a/b', 0)\nos.chmod('a', 0)",
    # Its folder is root's if root started it, and then it may not.
    "import os\ntry:\n  os.chmod('.', 0)\nexcept PermissionError:\n"
    "  assert os.stat('.').st_uid == 0",
  ],
)
def test_a_program_leaves_nothing_behind(program, tmp_path, monkeypatch):
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  monkeypatch.setattr("tempfile.tempdir", None)
  tmp_path.chmod(0o755)
  assert run_program(program, SHORT) == Outcome.PASSED
  assert not os.listdir(tmp_path)


def test_what_a_program_points_to_is_not_removed(tmp_path):
  tmp_path.chmod(0o777)
  kept = tmp_path / "kept"
  kept.write_text("x")
  program = f"import os\nos.symlink({str(tmp_path)!r}, 'a')\nos.symlink({str(kept)!r}, 'b')"
  assert run_program(program, SHORT) == Outcome.PASSED
  assert kept.read_text() == "x"


def test_limits_are_above_zero():
  with pytest.raises(ValueError, match="above 0"):
    Limits(seconds=0)
