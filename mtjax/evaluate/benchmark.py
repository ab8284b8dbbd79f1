"""Timings of systems against each other: one process each, rounds interleaved, medians."""

import dataclasses
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence

from mtjax.evaluate.peers import SYSTEMS


@dataclasses.dataclass(frozen=True)
class Row:
  """One system on one workload."""

  system: str
  tokens_per_second: tuple[float, ...]  # one a round
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


def available(systems: Sequence[str]) -> tuple[list[str], dict[str, str]]:
  """Systems whose packages are there, and why the others are not. ValueError for unknown names."""
  unknown = [name for name in systems if name not in SYSTEMS]
  if unknown:
    raise ValueError(f"unknown systems {unknown}; there is: {', '.join(SYSTEMS)}")
  missing = {}
  for name in systems:
    packages = [p for p in SYSTEMS[name][2] if importlib.util.find_spec(p) is None]
    if packages:
      missing[name] = f"not installed: {', '.join(packages)}"
  return [name for name in systems if name not in missing], missing


class _Worker:
  """A system in its own process."""

  def __init__(self, folder: str, threads: int, system: str):
    command = [sys.executable, "-m", "mtjax.evaluate.peers.worker", folder, str(threads), system]
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )

  def read(self) -> dict:
    line = self._process.stdout.readline()
    return json.loads(line) if line else {"error": "its process ended"}

  def run(self, prompts, tokens) -> dict:
    print(json.dumps(dict(prompts=prompts, tokens=tokens)), file=self._process.stdin, flush=True)
    return self.read()

  def close(self) -> None:
    self._process.stdin.close()
    try:
      self._process.wait(timeout=10)
    except subprocess.TimeoutExpired:
      self._process.kill()


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
) -> tuple[list[Row], dict[str, str]]:
  """Times greedy decoding of `prompts` (one batch, equal lengths) on each system.

  Each system has one warm-up run, then in every round each runs once, in turn. Returns rows and
  the reasons of systems that did not run. Raises ValueError when the reference is not among
  those that run.
  """
  if len({len(prompt) for prompt in prompts}) != 1:
    raise ValueError("the prompts of a batch must have one length")
  systems, failed = available(systems)
  workers: dict[str, _Worker] = {}
  texts, seconds = {}, {}
  try:
    for name in systems:
      progress(f"starting {name}")
      worker = _Worker(folder, threads, name)
      workers[name] = worker
      said = worker.read()
      said = worker.run(prompts, tokens) if "ready" in said else said
      if "error" in said:
        failed[name] = said["error"]
      else:
        texts[name], seconds[name] = said["tokens"], []
    for index in range(rounds):
      for name in list(seconds):
        progress(f"round {index + 1} of {rounds}: {name}")
        said = workers[name].run(prompts, tokens)
        if "error" in said:
          failed[name] = said["error"]
          del seconds[name]
        else:
          seconds[name].append(said["seconds"])
  finally:
    for worker in workers.values():
      worker.close()
  if reference not in seconds:
    why = failed.get(reference, "it is not among the systems")
    raise ValueError(f"the reference {reference!r} did not run: {why}")
  emitted = tokens * len(prompts)
  rows = []
  for name, times in seconds.items():
    pairs = zip(seconds[reference], times, strict=True)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    rates = tuple(emitted / time for time in times)
    rows.append(Row(name, rates, ratio, _same(texts[reference], texts[name])))
  return rows, failed


def _same(reference, tokens) -> float:
  equal = total = 0
  for one, other in zip(reference, tokens, strict=True):
    total += len(one)
    for a, b in zip(one, other, strict=False):
      if a != b:
        break
      equal += 1
  return equal / total
