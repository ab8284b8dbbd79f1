"""Compiles rounds for one mesh in a separate process: a compiler reads the environment at start."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from mtjax.bench.compile import missing
from mtjax.bench.compile.process import clean_environment
from mtjax.bench.pods.cases import PodMesh, RoundCase
from mtjax.bench.pods.collectives import Collective, of_size, of_vocabulary

DRAFT_LAYER, TARGET_LAYER = "draft layer", "target layer"  # where an exchange comes from
# CPU devices stand for others: what they compute is not run, so it need not be compiled for speed.
_QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"


@dataclasses.dataclass(frozen=True)
class CompiledRound:
  """The result of compiling a round with one layer of each model. Bytes are those of a device."""

  case: RoundCase
  pod: PodMesh
  params: int  # of both models, with all their layers
  cache: int  # of both models, with all their layers
  arguments: int  # parameters, caches and the rest of a generation's state
  temporary: int | None  # of what was compiled; None: for CPUs, which says nothing of others
  padding: int  # bytes that the arguments of what was compiled take beyond their own
  collectives: tuple[Collective, ...]  # of what was compiled

  @property
  def fits(self) -> bool:
    """Returns whether arguments and temporary memory fit a device."""
    return self.arguments + (self.temporary or 0) <= self.pod.memory

  @property
  def all_collectives(self) -> tuple[Collective, ...]:
    """The exchanges of a round of all layers: those of a layer as often as there are layers."""
    target, draft = self.case.depths
    depth = {"": 1, DRAFT_LAYER: draft, TARGET_LAYER: target}
    return tuple(one._replace(times=one.times * depth[one.scope]) for one in self.collectives)

  @property
  def gathered(self) -> tuple[Collective, ...]:
    """Exchanges of arrays as wide as the vocabulary or a part of it, or as long as the cache.

    Also those as large as a layer's keys on a device, whatever their shape.
    """
    wide = of_vocabulary(self.collectives, self.case.vocab, self.pod.model)
    long = of_size(self.collectives, {self.case.context})
    keys = self.case.key_bytes // (self.pod.data * self.pod.model)
    large = tuple(row for row in self.collectives if row.bytes >= keys)
    return tuple(dict.fromkeys((*wide, *long, *large)))

  def check(self) -> None:
    """Raises ValueError where logits or caches are gathered, or arguments are others."""
    if abs(self.padding) > self.arguments // 100:
      raise ValueError(
        f"{self.case} on {self.pod.name}: the arguments of the program differ by {self.padding:,} "
        "bytes from those of the shapes"
      )
    if self.gathered:
      found = ", ".join(f"{row.kind} {row.shape}" for row in self.gathered)
      raise ValueError(f"{self.case} on {self.pod.name} gathers logits or a cache: {found}")

  def as_row(self) -> dict[str, Any]:
    """Returns the result as JSON has it."""
    row = dataclasses.asdict(self)
    return row | dict(collectives=[one._asdict() for one in self.collectives])

  @classmethod
  def of_row(cls, row: dict[str, Any]) -> "CompiledRound":
    """Returns what `as_row` made a row of."""
    case, pod = RoundCase(**row["case"]), PodMesh(**row["pod"])
    exchanges = tuple(Collective(**one) for one in row["collectives"])
    rest = {name: row[name] for name in row if name not in ("case", "pod", "collectives")}
    return cls(case=case, pod=pod, collectives=exchanges, **rest)


def compile_rounds(
  pod: PodMesh, cases: Sequence[RoundCase], *, seconds: float = 3600.0
) -> Iterator[CompiledRound]:
  """Yields the result of each case as it is compiled, in one process for the mesh.

  Raises ModuleNotFoundError, naming the extra, without libtpu; TimeoutError where all cases
  together take more than `seconds` each; and RuntimeError with the end of what the process wrote
  if it died.
  """
  if pod.topology is not None and (reason := missing("tpu")) is not None:
    raise ModuleNotFoundError(reason)
  jobs = [dict(case=dataclasses.asdict(case), pod=dataclasses.asdict(pod)) for case in cases]
  try:
    run = subprocess.run(
      [sys.executable, "-m", "mtjax.bench.pods.child", str(0 if pod.topology else pod.devices)],
      input=json.dumps(jobs),
      env=clean_environment("tpu") if pod.topology else _cpu_environment(),
      capture_output=True,
      text=True,
      timeout=seconds * len(cases),
    )
  except subprocess.TimeoutExpired as error:
    raise TimeoutError(
      f"{len(cases)} rounds for {pod.name} took more than {seconds * len(cases):.0f} s"
    ) from error
  if run.returncode:
    raise RuntimeError(f"compiling for {pod.name} died: {run.stderr[-3000:]}")
  for case, line in zip(cases, run.stdout.splitlines(), strict=True):
    row = json.loads(line)
    exchanges = tuple(Collective(*one) for one in row.pop("collectives"))
    yield CompiledRound(case, pod, **row, collectives=exchanges)


def _cpu_environment() -> dict[str, str]:
  return clean_environment("cpu") | {"XLA_FLAGS": _QUICK}
