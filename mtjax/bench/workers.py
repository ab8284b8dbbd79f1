"""Timings of systems relative to each other: one process each, interleaved rounds, medians."""

import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence

from mtjax.bench.systems import SYSTEMS, System, WorkerJob

Batches = Sequence[Sequence[Sequence[int]]]  # prompts of equal length, batch by batch

_SHOWN = 300  # characters shown of the last output of a process that ended


@dataclasses.dataclass(frozen=True)
class WorkerRow:
  """The figures of one system on one workload."""

  system: str
  tokens_per_second: tuple[float, ...]  # one per round
  ratio: float  # median over rounds of this system's rate to the reference's in the same round
  same_text: float  # share of tokens equal to the reference's, up to the first difference

  @property
  def median(self) -> float:
    return statistics.median(self.tokens_per_second)

  @property
  def quartiles(self) -> tuple[float, float]:
    if len(self.tokens_per_second) < 2:
      return self.median, self.median
    low, _, high = statistics.quantiles(self.tokens_per_second, n=4)
    return low, high


class Worker:
  """A system in its own process. Its answers are dicts, with "error" when something failed."""

  def __init__(self, folder: str, threads: int, system: System):
    command = [sys.executable, "-m", "mtjax.bench.systems.worker", folder, str(threads)]
    self._said = tempfile.TemporaryFile()
    self._process = subprocess.Popen(
      [*command, json.dumps(dict(module=system.module, settings=dict(system.settings)))],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._said,
      text=True,
    )

  def read(self) -> dict:
    line = self._process.stdout.readline()
    return json.loads(line) if line else {"error": self._last_words()}

  def run(self, batches: Batches, job: WorkerJob, *, before: Batches | None = None) -> dict:
    """Runs and times each batch by itself: see `mtjax.bench.systems.worker`."""
    request = dict(batches=batches, job=dataclasses.asdict(job), before=before)
    try:
      print(json.dumps(request), file=self._process.stdin, flush=True)
    except BrokenPipeError:
      return {"error": self._last_words()}
    return self.read()

  def close(self) -> None:
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    try:
      self._process.wait(timeout=10)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._process.stdout.close()
    self._said.close()

  def _last_words(self) -> str:
    code = self._process.wait()
    self._said.seek(0)
    words = " ".join(self._said.read().decode(errors="replace").split())
    return f"its process ended with {code}: ...{words[-_SHOWN:]}"


@contextlib.contextmanager
def open_workers(
  folder: str, systems: Mapping[str, System], threads: int, progress: Callable[[str], None]
) -> Generator[tuple[dict[str, Worker], dict[str, str]]]:
  """Yields the processes of the systems that start, and why the others did not."""
  failed = {name: why for name, system in systems.items() if (why := system.missing())}
  workers, every = {}, []
  try:
    for name in [name for name in systems if name not in failed]:
      progress(f"starting {name}")
      worker = Worker(folder, threads, systems[name])
      every.append(worker)
      answer = worker.read()
      if "error" in answer:
        failed[name] = answer["error"]
      else:
        workers[name] = worker
    yield workers, failed
  finally:
    for worker in every:
      worker.close()


def interleave(
  workers: dict[str, Worker],
  failed: dict[str, str],
  rounds: int,
  ask: Callable[[Worker, int], dict],
  progress: Callable[[str], None],
) -> dict[str, list[list[dict]]]:
  """Returns the answers [system][round] of `ask(worker, round)`, each system once per round.

  Round 0 is the warm-up: it compiles. A system that fails goes from `workers` to `failed`.
  """
  answers = {name: [] for name in workers}
  for index in range(rounds + 1):
    running = list(workers)
    for number, name in enumerate(running, 1):
      where = f"{name}, {number} of {len(running)}"
      progress(f"measuring {where}: round {index} of {rounds}" if index else f"compiling {where}")
      answer = ask(workers[name], index)
      if "error" in answer:
        failed[name] = answer["error"]
        del workers[name], answers[name]
      else:
        answers[name].append(answer["batches"])
  return answers


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
  """Returns the median over rounds of theirs / ours; both are seconds, one per round."""
  return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def compare(
  folder: str,
  systems: Sequence[str],
  prompts: Sequence[Sequence[int]],
  *,
  reference: str,
  tokens: int,
  threads: int,
  rounds: int,
  progress: Callable[[str], None] = lambda text: None,
) -> tuple[list[WorkerRow], dict[str, str]]:
  """Times greedy decoding of `prompts` (one batch, equal lengths) on each system.

  Each system has one warm-up run, then in every round each runs once, in turn. Returns rows and
  the reasons of systems that did not run. Raises ValueError for unknown names and when the
  reference is not among those that run.
  """
  if len({len(prompt) for prompt in prompts}) != 1:
    raise ValueError("the prompts of a batch must have one length")
  chosen = get_system(systems, SYSTEMS)
  if reference not in chosen:
    raise ValueError(f"the reference {reference!r} is not among the systems: {', '.join(systems)}")
  with open_workers(folder, chosen, threads, progress) as (workers, failed):
    _check_runs(reference, failed)
    job = WorkerJob(tokens)
    answers = interleave(
      workers, failed, rounds, lambda worker, _: worker.run([prompts], job), progress
    )
  _check_runs(reference, failed)
  texts = {name: answer[0][0]["tokens"] for name, answer in answers.items()}
  seconds = {
    name: [batch["seconds"] for (batch,) in answer[1:]] for name, answer in answers.items()
  }
  rows = []
  for name, times in seconds.items():
    rates = tuple(tokens * len(prompts) / time for time in times)
    ratio = median_ratio(times, seconds[reference])
    rows.append(WorkerRow(name, rates, ratio, same_text(texts[reference], texts[name])))
  return rows, failed


def get_system(names: Sequence[str], systems: Mapping[str, System]) -> dict[str, System]:
  """Returns the systems of these names. Raises ValueError, with the known names, for others."""
  unknown = [name for name in names if name not in systems]
  if unknown:
    raise ValueError(f"unknown systems {unknown}; there are: {', '.join(systems)}")
  return {name: systems[name] for name in names}


def _check_runs(reference: str, failed: dict[str, str]) -> None:
  if reference in failed:
    raise ValueError(f"the reference {reference!r} did not run: {failed[reference]}")


def same_text(reference: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]) -> float:
  """Returns the share of tokens equal to the reference's, per row up to the first difference."""
  equal = total = 0
  for one, other in zip(reference, tokens, strict=True):
    total += len(one)
    for a, b in zip(one, other, strict=False):
      if a != b:
        break
      equal += 1
  return equal / total
