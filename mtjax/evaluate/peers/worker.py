"""One system in one process: python -m mtjax.evaluate.peers.worker FOLDER THREADS SYSTEM

Reads {"prompts": [[id]], "tokens": n} a line, answers {"seconds": s, "tokens": [[id]]} a line;
says {"ready": true} first, or {"error": why} and ends.
"""

import importlib
import json
import os
import sys
import time


def main(folder: str, threads: int, system: str) -> None:
  # Before anything imports a thread pool: pools take their size from these.
  cores = sorted(os.sched_getaffinity(0))[:threads]
  os.sched_setaffinity(0, cores)
  for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(threads)
  os.environ["JAX_PLATFORMS"] = "cpu"
  answers = os.fdopen(os.dup(1), "w")
  # Whatever a library prints must not mix with the answers.
  os.dup2(2, 1)

  def answer(**fields):
    print(json.dumps(fields), file=answers, flush=True)

  from mtjax.evaluate.peers import SYSTEMS

  module, variant, _ = SYSTEMS[system]
  try:
    opened = importlib.import_module(f"mtjax.evaluate.peers.{module}")
    run = opened.open_system(folder, threads, variant)
  except Exception as error:  # noqa: BLE001 - a peer that does not start is a row without figures
    answer(error=f"{type(error).__name__}: {error}")
    return
  answer(ready=True)
  for line in sys.stdin:
    job = json.loads(line)
    begin = time.perf_counter()
    tokens = run(job["prompts"], job["tokens"])
    answer(seconds=time.perf_counter() - begin, tokens=tokens)


if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
