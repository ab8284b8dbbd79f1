"""The benchmark of experiments/bench/device.py: a plan, and a report that grows part by part."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kernels_pallas.frontier_attention import dispatch as choice
from kernels_pallas.frontier_attention.dispatch import Implementation
from mtjax.bench.attention import (
  limits as device_limits,
)
from mtjax.bench.attention import (
  peers as device_peers,
)
from mtjax.bench.attention import (
  sweep as device_sweep,
)
from mtjax.bench.attention.correctness import (
  TOLERANCE,
  Agreement,
  cases,
  check,
  check_implementations,
  implementations_here,
)
from mtjax.bench.attention.inputs import pages
from mtjax.bench.attention.kernels import MASKS, AttentionShape
from mtjax.bench.attention.limits import DeviceLimits
from mtjax.bench.attention.sweep import SweepPoint
from mtjax.bench.latency_model import Latency

PARTS = ("correctness", "bandwidth", "entries", "comparison")


@dataclasses.dataclass(frozen=True)
class DevicePlan:
  """The shapes of every part. Raises ValueError for settings that are wrong or do not run here."""

  parts: tuple[str, ...] = PARTS
  implementation: Implementation | None = (
    None  # the one that is timed; None: the kernel of the platform, or xla
  )
  heads: int = 32
  kv_heads: int = 8
  width: int = 128
  dtype: str = "bfloat16"
  page: int = 256
  unit: int = 128  # slots per page in part correctness
  rows: tuple[int, ...] = (1, 4, 8, 32)
  slots: tuple[int, ...] = (2048, 8192, 32768)
  entries: tuple[int, ...] = (1, 8, 16, 32, 64)
  one_layer: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
  one_layer_slots: int = 8192
  decoding: tuple[tuple[int, int, int], ...] = (
    (1, 1, 8192), (1, 16, 8192), (1, 64, 8192), (8, 16, 8192),
  )  # fmt: skip
  masks: tuple[str, ...] = ("causal", "4 documents", "two streams", "block diffusion")
  lengths: tuple[int, ...] = (2048, 8192)
  copied: int = 1 << 30  # bytes of the array whose copying is timed
  side: int = 8192  # rows and columns of the matrices whose product is timed
  rounds: int = 5

  def __post_init__(self):
    for part in self.parts:
      if part not in PARTS:
        raise ValueError(f"unknown part {part!r}; there are: {', '.join(PARTS)}")
    if self.dtype not in TOLERANCE:
      raise ValueError(f"dtype {self.dtype!r} is not one of: {', '.join(TOLERANCE)}")
    if self.implementation is not None:
      check_implementations([self.implementation])
      if self.implementation.endswith("interpret") and set(self.parts) != {"correctness"}:
        raise ValueError("the time of an interpreter says nothing: use --parts=correctness")
    for name in ("rows", "slots", "entries", "one_layer", "lengths"):
      if not getattr(self, name) or min(getattr(self, name)) < 1:
        raise ValueError(f"{name} must be numbers of at least 1, not {getattr(self, name)}")
    for slots in (*self.slots, self.one_layer_slots):
      pages(slots, self.page)
    if unknown := [mask for mask in self.masks if mask not in MASKS]:
      raise ValueError(f"unknown mask {unknown[0]!r}; there are: {', '.join(MASKS)}")

  @property
  def swept(self) -> Implementation:
    return self.implementation or choice.kernel_here() or "xla"

  @property
  def systems(self) -> tuple[Implementation, ...]:
    return tuple(dict.fromkeys((*implementations_here(), self.swept)))

  @property
  def common(self) -> dict[str, Any]:
    return dict(heads=self.heads, kv_heads=self.kv_heads, width=self.width, dtype=self.dtype)


TOY: dict[str, Any] = dict(
  heads=4, kv_heads=2, width=16, dtype="float32", page=16, unit=8, rows=(1, 2), slots=(64, 128),
  entries=(1, 4), one_layer=(1, 4, 16, 64), one_layer_slots=64, decoding=((1, 4, 64),),
  masks=("two streams",), lengths=(32,), copied=1 << 22, side=128, rounds=3,
)  # fmt: skip


def full(**changes: Any) -> DevicePlan:
  """Returns the plan for an accelerator. Raises ValueError where there is none."""
  platform = choice.platform_here()
  if platform == "cpu":
    raise ValueError("JAX sees no accelerator here; --sizes=toy runs anywhere")
  sizes: dict[str, Any] = dict(page=128 if platform == "gpu" else 256)
  return DevicePlan(**sizes | changes)


def toy(**changes: Any) -> DevicePlan:
  """Returns a plan of small shapes, which only shows that the benchmark runs."""
  return DevicePlan(**TOY | changes)


@dataclasses.dataclass(frozen=True)
class DeviceReport:
  """The results of all parts."""

  limits: DeviceLimits | None = None  # None: only correctness was checked
  verdicts: tuple[Agreement, ...] = ()
  sweep: tuple[SweepPoint, ...] = ()
  entries: tuple[SweepPoint, ...] = ()
  latency: Latency | None = None
  comparison: tuple[SweepPoint, ...] = ()

  @property
  def failed(self) -> list[Agreement]:
    return [verdict for verdict in self.verdicts if verdict.failed]

  def figures(self) -> dict[str, Any]:
    """Returns the report as JSON values."""

    def plain(x):
      return None if x is None else dataclasses.asdict(x)

    return dict(
      limits=plain(self.limits),
      correctness=[plain(v) | dict(failed=v.failed) for v in self.verdicts],
      bandwidth=[point.figures() for point in self.sweep],
      entries=[point.figures() for point in self.entries],
      latency=None if self.latency is None else self.latency.figures(),
      comparison=[point.figures() for point in self.comparison],
    )


class Step(NamedTuple):
  """The report after one more case, point or shape."""

  part: str  # "limits" comes first, if anything is timed
  report: DeviceReport
  ended: bool  # whether the part has ended


def benchmark(
  plan: DevicePlan, progress: Callable[[str], None] = lambda text: None
) -> Iterator[Step]:
  """Runs the parts in the order of the plan, and yields the report after every step."""
  report = DeviceReport()
  if set(plan.parts) != {"correctness"}:
    progress("limits of the device")
    limits = device_limits.measure(plan.copied, plan.side, plan.rounds)
    report = dataclasses.replace(report, limits=limits)
    yield Step("limits", report, True)
  for part in plan.parts:
    for more in _RUN[part](plan, report.limits, progress):
      report = dataclasses.replace(report, **more)
      yield Step(part, report, False)
    yield Step(part, report, True)


def _correctness(plan, limits, progress) -> Iterator[dict[str, Any]]:
  results = ()
  for case in cases(plan.heads, plan.kv_heads, plan.width, plan.unit, plan.dtype):
    results += tuple(check([case], plan.systems, progress=progress))
    yield dict(verdicts=results)


def _bandwidth(plan, limits, progress) -> Iterator[dict[str, Any]]:
  shapes = [
    AttentionShape("tree", entries, slots, slots, rows, **plan.common)
    for rows in plan.rows
    for slots in plan.slots
    for entries in plan.entries
  ]
  for results in _points(plan, shapes, (None, plan.page), limits, progress):
    yield dict(sweep=results)


def _entries(plan, limits, progress) -> Iterator[dict[str, Any]]:
  slots = plan.one_layer_slots
  shapes = [
    AttentionShape("tree", entries, slots, slots, 1, **plan.common) for entries in plan.one_layer
  ]
  for results in _points(plan, shapes, (plan.page,), limits, progress):
    yield dict(entries=results, latency=device_sweep.over_entries(results))


def _points(plan, shapes, sizes, limits, progress) -> Iterator[tuple[SweepPoint, ...]]:
  """Yields all points measured so far, after each new one."""
  results = ()
  for shape in shapes:
    for page in sizes:
      kind = "rows" if page is None else "pages"
      progress(f"{shape.batch} x {shape.filled} slots in {kind}, {shape.entries} entries")
      point = device_sweep.measured(shape, limits, plan.swept, page, rounds=plan.rounds)
      results += (point,)
      yield results


def _comparison(plan, limits, progress) -> Iterator[dict[str, Any]]:
  shapes = device_peers.shapes(
    plan.decoding, [(mask, n) for mask in plan.masks for n in plan.lengths], **plan.common
  )
  results = ()
  for shape in shapes:
    points = device_peers.compare(
      shape, limits, plan.systems, rounds=plan.rounds, progress=progress
    )
    results += tuple(points)
    yield dict(comparison=results)


_RUN = dict(zip(PARTS, (_correctness, _bandwidth, _entries, _comparison), strict=True))
