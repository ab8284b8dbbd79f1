"""A workdir belongs to one run at a time, and to none once that run's process has ended."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from mtjax import train
from mtjax.train.lock import LOCK_FILE, exclusive


def test_a_second_run_is_refused_by_name_and_changes_nothing(tmp_path, config):
  with exclusive(tmp_path):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"{tmp_path}' is in use by process {os.getpid()} on "):
      train.run(config, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
  assert not list(tmp_path.iterdir())
  with exclusive(tmp_path):
    pass


def test_of_many_that_start_at_once_one_holds_the_workdir(tmp_path):
  """Repeated many times, so that some take the lock while others release it and remove the file."""
  inside, max_inside, ran, errors = 0, 0, 0, []
  counting = threading.Lock()

  def run():
    nonlocal inside, max_inside, ran
    held = 0
    while held < 50 and not errors:
      try:
        with exclusive(tmp_path / "run"):
          with counting:
            inside, ran, held = inside + 1, ran + 1, held + 1
            max_inside = max(max_inside, inside)
          with counting:
            inside -= 1
      except ValueError:
        continue  # in use
      except OSError as error:
        errors.append(error)

  threads = [threading.Thread(target=run) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert max_inside == 1 and ran == 200 and not errors


def test_the_lock_of_a_killed_process_is_gone(tmp_path):
  code = (
    "import sys, time; from pathlib import Path; from mtjax.train.lock import exclusive\n"
    "with exclusive(Path(sys.argv[1])):\n  print('held', flush=True); time.sleep(60)"
  )
  holder = subprocess.Popen(
    [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
  )
  assert holder.stdout.readline() == "held\n"
  with pytest.raises(ValueError, match=f"in use by process {holder.pid} on "), exclusive(tmp_path):
    pass
  holder.send_signal(signal.SIGKILL)
  holder.communicate()
  assert (tmp_path / LOCK_FILE).exists()
  with exclusive(tmp_path):
    pass


def test_a_run_that_fails_before_it_writes_leaves_no_folder(tmp_path, config):
  config.data.sources = ()
  with pytest.raises(ValueError, match="data.sources is empty"):
    train.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()
