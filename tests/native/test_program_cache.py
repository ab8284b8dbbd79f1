"""Compiled programs persist between processes."""

import os
import subprocess
import sys
import time

import pytest

_PROGRAM = """
import jax
from mtjax.native.program_cache import keep_programs
jax.jit(lambda x: x + 1)(1.0)  # JAX has looked for a cache before
folder = keep_programs({where!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.jit(lambda x: x @ x)(jax.numpy.ones((3, 3)))
print(folder, "/jax/compilation_cache/cache_hits" in events)
"""


def _run(home, where=None, **settings):
  environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
  environment |= dict(XDG_CACHE_HOME=str(home), **settings)
  run = subprocess.run(
    [sys.executable, "-c", _PROGRAM.format(where=where)],
    capture_output=True,
    text=True,
    env=environment,
  )
  return run.stdout.split(), run.stderr


def test_the_second_process_reads_what_the_first_compiled(tmp_path):
  (folder, hit), _ = _run(tmp_path)
  assert folder.startswith(str(tmp_path / "mtjax" / "programs")) and hit == "False"
  old, used = tmp_path / "mtjax" / "programs" / "old", tmp_path / "mtjax" / "programs" / "used"
  old.mkdir()
  used.mkdir()
  os.utime(old, (time.time() - 31 * 24 * 3600,) * 2)
  assert _run(tmp_path)[0] == [folder, "True"]
  assert not old.exists() and used.exists(), "only what was not used for a month is forgotten"


@pytest.mark.parametrize(
  "where, settings",
  [
    ("off", {}),
    (None, dict(MTJAX_PROGRAM_CACHE="off")),
    (None, dict(JAX_COMPILATION_CACHE_DIR="{home}/own")),
  ],
)
def test_it_is_switched_off_or_left_to_the_user(tmp_path, where, settings):
  settings = {name: value.format(home=tmp_path) for name, value in settings.items()}
  assert _run(tmp_path, where, **settings)[0] == ["None", "False"]
  assert not (tmp_path / "mtjax").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  out, error = _run(tmp_path, str(tmp_path / "file" / "programs"))
  assert not out and "ValueError: programs cannot be kept in" in error
  (tmp_path / "mtjax").write_text("")
  assert _run(tmp_path)[0] == ["None", "False"], "the default folder is a convenience"
