"""The programs that a sweep can run, and where each of them leaves what it measured."""

import dataclasses
import fnmatch
import importlib
import json
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

Metrics = dict[str, float]


def _accept(config: ConfigDict, settings: Mapping[str, Any]) -> None:
  """Refuses nothing: the program checks its config and flags itself."""


@dataclasses.dataclass(frozen=True)
class SweptProgram:
  """A launcher that a sweep runs once per setting and seed."""

  module: str  # python -m MODULE
  output: str  # the flag that names the file or folder of a run,
  place: str  # and what it is called in the run's folder
  read: Callable[[Path], Metrics]  # from that file or folder
  shown: Sequence[str]  # patterns of the metrics that the table and the plot show
  seed: str  # the flag that sets the seed
  flag_modules: Sequence[str] = ()  # modules with more flags of the launcher
  # Takes a run's config and settings; raises ValueError before anything runs.
  check: Callable[[ConfigDict, Mapping[str, Any]], None] = _accept

  def flags(self) -> dict[str, flags.Flag]:
    """Returns the launcher's flags by name."""
    # To import mtjax.cli.train sets a handler of SIGTERM, which is for that program alone.
    before = signal.getsignal(signal.SIGTERM)
    modules = [importlib.import_module(name) for name in (self.module, *self.flag_modules)]
    if signal.getsignal(signal.SIGTERM) is not before:
      signal.signal(signal.SIGTERM, before)
    return {name: module.VALUES[name] for module in modules for name in module.VALUES}


def shown_metrics(
  program: SweptProgram, names: Sequence[str], patterns: Sequence[str]
) -> list[str]:
  """Returns the names that match a pattern, in the order of the patterns.

  No patterns: those of the program, or all names if it has none of those. Raises ValueError for a
  pattern that matches nothing.
  """
  for pattern in patterns:
    if names and not fnmatch.filter(names, pattern):
      raise ValueError(f"no metric is called {pattern!r}; the runs have: {', '.join(names)}")
  found = (fnmatch.filter(names, pattern) for pattern in patterns or program.shown)
  return list(dict.fromkeys(name for one in found for name in one)) or list(names)


def _train_metrics(workdir: Path) -> Metrics:
  """Returns the last value of every metric, and the best one of each evaluation."""
  metrics: Metrics = {}
  best: Metrics = {}
  for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
    values = json.loads(line)
    metrics |= values
    for name, value in values.items():
      if name.startswith("bits_per_byte/"):
        # A value that is no number is no better than another.
        best[f"best/{name}"] = min(best.get(f"best/{name}", math.inf), value)
  metrics.pop("eta_seconds", None)
  return metrics | best


def _counters(output: Path) -> Metrics:
  """Returns the counters of a run, and, where its text was judged, the judge's figures."""
  record = json.loads(output.read_text(encoding="utf-8"))
  quality = record.get("quality", {})
  return dict(_numbers(record["counters"])) | dict(_numbers(quality, "quality/"))


def _scores(output: Path) -> Metrics:
  """Returns the figures of texts, of blanks or of answers.

  A sweep of methods gives each run one of them, whose name would make other metrics of every run:
  figures of a task with one method are called after the task alone.
  """
  record = json.loads(output.read_text(encoding="utf-8"))
  rows = record["summaries"] if "summaries" in record else record["texts"]
  return dict(_numbers({name: _of_one_method(row) for name, row in rows.items()}))


def _of_one_method(row: Mapping[str, Any]) -> Mapping[str, Any]:
  values = list(row.values())
  return values[0] if len(values) == 1 and isinstance(values[0], Mapping) else row


def _numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
  for name, value in record.items():
    if isinstance(value, Mapping):
      yield from _numbers(value, f"{prefix}{name}/")
    elif isinstance(value, int | float) and not isinstance(value, bool):
      yield prefix + name, value


def _check_training(config: ConfigDict, settings: Mapping[str, Any]) -> None:
  from mtjax.train.config import read

  read(config.to_dict())


def _check_decoding(config: ConfigDict, settings: Mapping[str, Any]) -> None:
  from mtjax.pretrained import check_name
  from mtjax.registry.denoising.methods import METHOD, make_denoiser

  try:
    check_name(settings.get("judge", "target"))
  except FileNotFoundError as error:
    raise ValueError(f"judge: {error}") from None
  if config.get("method") == METHOD:
    make_denoiser(config.to_dict())


PROGRAMS: dict[str, SweptProgram] = {
  "train": SweptProgram(
    "mtjax.cli.train",
    "workdir",
    "workdir",
    _train_metrics,
    ("bits_per_byte/*", "best/*", "loss"),
    seed="config.seed",
    check=_check_training,
  ),
  "decode": SweptProgram(
    "mtjax.cli.decode",
    "output",
    "output.json",
    _counters,
    ("quality/bits_per_byte", "quality/entropy", "tokens_per_forward", "tokens_per_second"),
    seed="config.seed",
    check=_check_decoding,
  ),
  "infill": SweptProgram(
    "mtjax.cli.infill",
    "output",
    "output.json",
    _counters,
    ("tokens_per_forward", "seconds"),
    seed="seed",
  ),
  "evaluate": SweptProgram(
    "mtjax.cli.evaluate",
    "output",
    "output.json",
    _scores,
    ("*/score", "*/perplexity", "*/entropy", "*/tokens_per_forward", "*/bits_per_byte"),
    seed="seed",
    flag_modules=(
      "mtjax.cli.evaluate_answers",
      "mtjax.cli.evaluate_infilling",
      "mtjax.cli.evaluate_orders",
      "mtjax.cli.likelihood.launch",
    ),
  ),
}
