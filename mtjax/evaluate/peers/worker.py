"""One system in one process: python -m mtjax.evaluate.peers.worker FOLDER THREADS SYSTEM

SYSTEM is {"module": ..., "settings": {...}}. Says {"ready": true, "remembers": bool} first, or
{"error": why} and ends. Then reads {"batches": [[[id]]], "job": {...}, "before": [[[id]]] or null}
a line and answers {"batches": [{"seconds": s, "tokens": [[id]], ...}]}, one after the other and
each timed on its own, or {"error": why}. A system that remembers forgets and then decodes what is
in "before", untimed, where that is given.
"""

import importlib
import json
import os
import sys
import time


def main(folder: str, threads: int, system: dict) -> None:
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

  from mtjax.evaluate.peers import Job

  try:
    opened = importlib.import_module(f"mtjax.evaluate.peers.{system['module']}")
    run = opened.open_system(folder, threads, **system["settings"])
    remembers = hasattr(run, "forget")
  except Exception as error:  # noqa: BLE001 - a peer that does not start is a row without figures
    answer(error=f"{type(error).__name__}: {error}")
    return
  answer(ready=True, remembers=remembers)
  for line in sys.stdin:
    asked = json.loads(line)
    try:
      job = Job(**asked["job"])
      if remembers and asked["before"] is not None:
        run.forget()
        for prompts in asked["before"]:
          run(prompts, job)
      answer(batches=[_timed(run, prompts, job) for prompts in asked["batches"]])
    except Exception as error:  # noqa: BLE001 - it is the caller who shows it
      answer(error=f"{type(error).__name__}: {error}")


def _timed(run, prompts, job) -> dict:
  begin = time.perf_counter()
  text = run(prompts, job)
  seconds = time.perf_counter() - begin
  return dict(seconds=seconds, **text._asdict())


if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
