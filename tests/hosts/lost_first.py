"""Run by test_two_processes.py: jobs of two processes whose process 0 is killed.

Prints, for what process 1 does meanwhile, its exit code, its standard error, and the seconds from
the kill to its end. Process 0 is special: all processes of a job meet at it.
"""

import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

from mtjax import hosts

HEARTBEAT = 2
CASES = {
  "computes": lambda: hosts.gather("with process 0, which does not come"),
  "waits": lambda: time.sleep(60),
}


def process(index: int, port: int, folder: Path, act: Callable[[], object]) -> None:
  """Joins the job and agrees with the other process; then process 0 dies, and process 1 acts."""
  signal.alarm(60)
  errors = os.open(folder / f"errors-{index}", os.O_WRONLY | os.O_CREAT)
  for number in (1, 2):
    os.dup2(errors, number)
  place = hosts.HostPlace(address=f"localhost:{port}", count=2, index=index)
  hosts.meet(place, heartbeat=HEARTBEAT)
  with hosts.ends_together():
    hosts.gather("")
    if index == 0:
      (folder / "killed").write_text(str(time.time()))
      os.kill(os.getpid(), signal.SIGKILL)
    act()


def started(folder: Path, act: Callable[[], object]) -> list[int]:
  """Returns the process ids of a job of two."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  ids = []
  for index in range(2):
    ids.append(os.fork())
    if not ids[-1]:
      try:
        process(index, port, folder, act)
      finally:
        os._exit(0)  # what it should have ended with is another code
  return ids


def main() -> None:
  jax.config.update("jax_num_cpu_devices", 1)
  out = {}
  with tempfile.TemporaryDirectory() as name:
    jobs = {}
    for case, act in CASES.items():
      (folder := Path(name) / case).mkdir()
      jobs[case] = folder, started(folder, act)
    for case, (folder, ids) in jobs.items():
      codes = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in ids]
      seconds = time.time() - float((folder / "killed").read_text())
      errors = (folder / "errors-1").read_text()
      out[case] = dict(killed=codes[0], code=codes[1], errors=errors, seconds=seconds)
  json.dump(out, sys.stdout)


if __name__ == "__main__":
  main()
