"""The sandbox: how programs end, and what they cannot do."""

import os
import sys
import threading
import time

import pytest

from mtjax.evaluate.tasks import sandbox, sandbox_child
from mtjax.evaluate.tasks.sandbox import ProgramResult, SandboxLimits, run_program

SHORT = SandboxLimits(seconds=5.0)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="no limit of memory: run it on Linux")


@pytest.mark.parametrize(
  ("program", "outcome"),
  [
    ("import math\nassert math.gcd(4, 6) == 2", ProgramResult.PASSED),
    ("assert 1 == 2", ProgramResult.FAILED),
    ("def f(:", ProgramResult.FAILED),
    ("raise SystemExit(0)", ProgramResult.FAILED),
    ("import os\nos._exit(0)", ProgramResult.FAILED),
    ("import ctypes\nctypes.string_at(0)", ProgramResult.FAILED),
    ("\ud800", ProgramResult.FAILED),
    ("import numpy", ProgramResult.FAILED),
    pytest.param("x = [0]\nwhile True:\n  x = x + x", ProgramResult.OUT_OF_MEMORY, marks=LINUX),
    ("input()", ProgramResult.FAILED),
    ("import os\nassert os.listdir() == [] and 'HOME' not in os.environ", ProgramResult.PASSED),
    ("print('flood' * 10**7)", ProgramResult.PASSED),
    ("open('mine', 'w').write('few')", ProgramResult.PASSED),
    ("with open('mine', 'w') as f:\n  f.write('x' * (2 << 20))", ProgramResult.FAILED),
    ("import os\nos.fork()", ProgramResult.FAILED),
    ("import threading\nthreading.Thread(target=print).start()", ProgramResult.FAILED),
    ("import atexit, time\natexit.register(time.sleep, 60)", ProgramResult.PASSED),
  ],
)
def test_a_program_has_an_outcome(program, outcome):
  assert run_program(program, SHORT) == outcome


# Programs that try to count as passed without running to the end. `tell` writes data to every
# descriptor that may exist.
TELL = """
import os, sys
def tell(data):
  for number in range(256):
    try:
      os.write(number, data)
    except OSError:
      pass
"""
FORGERIES = {
  "the code of a pass": f"import os\nos._exit({sandbox_child.OUT_OF_MEMORY - 2})",
  "exit code 0": "import os\nos._exit(0)",
  "another program": "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', ''])",
  "words": TELL + "tell(b'passed')\nos._exit(0)",
  "a token of its own": TELL + "tell(bytes(16))\nos._exit(0)",
  "what can be read": TELL
  + """
for number in range(256):
  try:
    os.set_blocking(number, False)
    tell(os.read(number, 64))
  except OSError:
    pass
os._exit(0)
""",
  "what is handed in": TELL
  + """
for name in ("environ", "cmdline"):
  for part in open(f"/proc/self/{name}", "rb").read().split(bytes(1)):
    tell(part)
os._exit(0)
""",
  "the frames below and what they reach": TELL
  + """
import gc, types
def search(thing, depth):
  if isinstance(thing, bytes) and len(thing) == 16:
    tell(thing)
    os._exit(0)
  if isinstance(thing, types.ModuleType):
    thing = vars(thing)
  if depth and isinstance(thing, dict):
    for value in list(thing.values()):
      search(value, depth - 1)
  elif depth and isinstance(thing, (list, tuple, set)):
    for value in list(thing):
      search(value, depth - 1)
frames = [sys._getframe()]
try:
  1 / 0
except ZeroDivisionError as error:
  frames.append(error.__traceback__.tb_frame)
for frame in frames:
  while frame is not None:
    for found in (frame.f_locals, frame.f_globals, frame.f_code.co_consts):
      search(found, 3)
    if hasattr(gc, "get_referents"):
      search(gc.get_referents(frame), 3)
    frame = frame.f_back
if hasattr(gc, "get_objects"):
  search(gc.get_objects(), 3)
os._exit(0)
""",
  "an exit from under the frames": TELL + "sys._getframe().f_back.f_globals['FAILED'] = 0\nexit()",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_program_that_only_pretends_has_not_passed(name):
  assert run_program(FORGERIES[name], SHORT) == ProgramResult.FAILED


def test_a_program_is_main_and_may_name_itself():
  program = (
    "import sys\nclass A: pass\nassert sys.modules[A.__module__].A is A and len(sys.argv) == 1"
  )
  assert run_program(program, SHORT) == ProgramResult.PASSED


@LINUX
def test_all_files_together_are_limited(tmp_path):
  own = "import os\nassert os.stat('.').st_dev != os.stat('..').st_dev"
  if run_program(own, SHORT) != ProgramResult.PASSED:
    pytest.skip("this system allows no private file system: run it where user namespaces work")
  few = SandboxLimits(seconds=5.0, disk=1 << 20)
  files = "for n in range({}):\n  open(str(n), 'w').write('x' * {})"
  assert run_program(files.format(100, 1000), few) == ProgramResult.PASSED
  assert run_program(files.format(100, 100_000), few) == ProgramResult.FAILED
  assert run_program(files.format(1000, 0), few) == ProgramResult.FAILED


@pytest.mark.parametrize(
  "program",
  [
    "while True: pass",
    "import time\ntime.sleep(60)",
    "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
    "while True: print('flood')",
    # A fork bomb: the processes that it starts only wait, so that it is harmless if it works.
    "import os, time\nfor _ in range(20):\n  try:\n    os.fork() or time.sleep(60)\n"
    "  except OSError: time.sleep(60)",
  ],
)
def test_a_program_that_does_not_end_is_killed(program):
  begin = time.monotonic()
  assert run_program(program, SandboxLimits(seconds=0.5)) == ProgramResult.TIMED_OUT
  assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
  "program",
  [
    "open('mine', 'w').write('x')",
    # Folders nested deeper than Python recurses and than a path may be long.
    "import os\nfor _ in range(3000):\n  os.mkdir('d')\n  os.chdir('d')\nopen('mine', 'w')",
    "import os\nos.makedirs('a/b')\nos.chmod('a/b', 0)\nos.chmod('a', 0)",
    # If root started the program, its folder belongs to root, and this fails.
    "import os\ntry:\n  os.chmod('.', 0)\nexcept PermissionError:\n"
    "  assert os.stat('.').st_uid == 0",
  ],
)
def test_a_program_leaves_nothing_behind(program, tmp_path, monkeypatch):
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  monkeypatch.setattr("tempfile.tempdir", None)
  tmp_path.chmod(0o755)
  assert run_program(program, SHORT) == ProgramResult.PASSED
  assert not os.listdir(tmp_path)


def test_the_target_of_a_programs_link_is_not_removed(tmp_path):
  tmp_path.chmod(0o777)
  kept = tmp_path / "kept"
  kept.write_text("x")
  program = f"import os\nos.symlink({str(tmp_path)!r}, 'a')\nos.symlink({str(kept)!r}, 'b')"
  assert run_program(program, SHORT) == ProgramResult.PASSED
  assert kept.read_text() == "x"


def test_folders_are_removed_however_deep_and_closed_they_are(tmp_path):
  """The folders are on the disk here, as on a system without a file system in memory."""
  os.makedirs(tmp_path / "deep" / "closed")
  (tmp_path / "deep" / "closed" / "file").write_text("x")
  fd = os.open(tmp_path / "deep", os.O_RDONLY)
  for _ in range(300):
    os.mkdir("d" * 30, dir_fd=fd)
    inner = os.open("d" * 30, os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    fd = inner
  os.close(fd)
  os.chmod(tmp_path / "deep" / "closed", 0)
  sandbox._remove(str(tmp_path / "deep"))
  assert not os.listdir(tmp_path)


def test_a_long_removal_does_not_delay_the_outcome(monkeypatch):
  allowed, removed, remove = threading.Event(), [], sandbox._remove

  def wait_and_remove(folder):
    allowed.wait(30)
    remove(folder)
    removed.append(folder)

  monkeypatch.setattr(sandbox, "_remove", wait_and_remove)
  begin = time.monotonic()
  assert run_program("pass", SandboxLimits(seconds=1.0)) == ProgramResult.PASSED
  assert time.monotonic() - begin < 10 and not removed
  allowed.set()


def test_limits_are_above_zero():
  with pytest.raises(ValueError, match="above 0"):
    SandboxLimits(seconds=0)
