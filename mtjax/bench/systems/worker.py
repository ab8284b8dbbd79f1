"""One system in one process: python -m mtjax.bench.systems.worker FOLDER THREADS SYSTEM

SYSTEM is {"module": ..., "settings": {...}}. It prints {"ready": true, "remembers": bool} first, or
{"error": why} and ends. Then it reads {"batches": [[[id]]], "job": {...}, "before": [[[id]]] or
null} per line and answers {"batches": [{"seconds": s, "tokens": [[id]], ...}]}, where batches are
timed one by one, or {"error": why}. A system that remembers forgets first, and then decodes the
batches in "before", if any, untimed. No two batches have the same seed.
"""

import dataclasses
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable

from mtjax.bench.systems import Run, WorkerJob

_SEEDS, _BEFORE = 2**16, 2**15  # seeds per job; the first seed of untimed batches


def main(folder: str, threads: int, system: dict) -> None:
  # This must come before any import of a thread pool, whose size these variables set.
  cores = sorted(os.sched_getaffinity(0))[:threads]
  os.sched_setaffinity(0, cores)
  for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(threads)
  os.environ["JAX_PLATFORMS"] = "cpu"
  answers = os.fdopen(os.dup(1), "w")
  # The output of libraries must not mix with the answers.
  os.dup2(2, 1)

  def answer(**fields):
    print(json.dumps(fields), file=answers, flush=True)

  try:
    opened = importlib.import_module(f"mtjax.bench.systems.{system['module']}")
    run = opened.open_system(folder, threads, **system["settings"])
  except Exception as error:  # noqa: BLE001 - a peer that does not start is reported without figures
    answer(error=f"{type(error).__name__}: {error}")
    return
  serve(run, sys.stdin, answer)


def serve(run: Run, lines: Iterable[str], answer: Callable[..., None]) -> None:
  """Answers every line until there are no more."""
  forget = getattr(run, "forget", None)
  answer(ready=True, remembers=forget is not None)
  for line in lines:
    request = json.loads(line)
    try:
      job = WorkerJob(**request["job"])
      if forget is not None and request["before"] is not None:
        forget()
        for prompts, seeded in _seeded(request["before"], job, _BEFORE):
          run(prompts, seeded)
      answer(batches=[_timed(run, *batch) for batch in _seeded(request["batches"], job, 0)])
    except Exception as error:  # noqa: BLE001 - the caller shows it
      answer(error=f"{type(error).__name__}: {error}")


def _seeded(batches, job, first: int):
  return [
    (prompts, dataclasses.replace(job, seed=job.seed * _SEEDS + first + index))
    for index, prompts in enumerate(batches)
  ]


def _timed(run, prompts, job) -> dict:
  begin = time.perf_counter()
  text = run(prompts, job)
  seconds = time.perf_counter() - begin
  return dict(seconds=seconds, **text._asdict())


if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
