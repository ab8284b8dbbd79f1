"""Tables of attention measured on a device."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtjax.bench.attention.correctness import Agreement
from mtjax.bench.attention.device import DeviceReport
from mtjax.bench.attention.limits import DeviceLimits, knee
from mtjax.bench.attention.sweep import SweepPoint
from mtjax.bench.latency_model import Latency
from mtjax.report.cells import Cells

ENOUGH = 0.8  # share of a copy's bandwidth to reach with caches of 8,192 slots or more


def pieces(part: str, report: DeviceReport, swept: str) -> list[Any]:
  """Returns the tables and lines for one part of the benchmark that has just ended."""
  if part == "limits" and report.limits is not None:
    return [limits_line(report.limits)]
  if part == "correctness":
    return [correctness_table(report.verdicts).for_terminal()]
  if part == "bandwidth":
    table = sweep_table(report.sweep, f"Bandwidth of `{swept}`")
    return [table.for_terminal(), bandwidth_verdict(report.sweep)]
  if part == "entries":
    table = sweep_table(report.entries, f"One layer of `{swept}`")
    return [table.for_terminal(), latency_line(report.latency, report.entries)]
  return [comparison_table(report.comparison).for_terminal()]


def tables(report: DeviceReport, swept: str) -> list[Cells]:
  """Returns the tables of all parts that have begun."""
  found = []
  if report.verdicts:
    found.append(correctness_table(report.verdicts))
  if report.sweep:
    found.append(sweep_table(report.sweep, f"Bandwidth of `{swept}`"))
  if report.entries:
    found.append(sweep_table(report.entries, f"One layer of `{swept}`"))
  return found + [comparison_table(report.comparison)] * bool(report.comparison)


def sentences(report: DeviceReport) -> list[str]:
  """Returns what the tables say in a sentence each."""
  found = [] if report.limits is None else [limits_line(report.limits)]
  if report.sweep:
    found.append(bandwidth_verdict(report.sweep))
  return found + [latency_line(report.latency, report.entries)] * bool(report.entries)


def correctness_table(verdicts: Sequence[Agreement]) -> Cells:
  """Returns a table of error / tolerance: results up to 1 are right."""
  names = list(dict.fromkeys(v.implementation for v in verdicts))
  rows = []
  for case in dict.fromkeys(v.case for v in verdicts):
    by = {v.implementation: v for v in verdicts if v.case == case}
    rows.append((case, *(_verdict(by[name]) for name in names)))
  return Cells("Error / tolerance, against float64", ["case", *names], rows)


def _verdict(verdict: Agreement) -> str:
  if verdict.worst is None:
    return f"FAILED: {verdict.why}" if verdict.failed else f"no: {verdict.why}"
  return f"{verdict.worst:.2f}" + (f" FAILED: {verdict.why}" if verdict.failed else "")


def limits_line(limits: DeviceLimits) -> str:
  return (
    f"{limits.device}: copies {limits.copy_rate / 1e9:,.1f} GB/s (read and written), multiplies "
    f"{limits.matmul_rate / 1e12:,.2f} TFLOP/s in bfloat16, {limits.ridge:,.0f} FLOPs a byte"
  )


def sweep_table(points: Sequence[SweepPoint], title: str) -> Cells:
  header = [
    "cache", "rows", "slots", "entries", "us", "roofline, us", "MB", "of copy", "of FLOPs"
  ]  # fmt: skip
  rows = []
  for point in points:
    shape = point.shape
    kind = "rows" if point.page is None else f"pages of {point.page}"
    sizes = (str(shape.batch), f"{shape.filled:,}", str(shape.entries))
    rows.append((kind, *sizes, *_figures(point)))
  return Cells(title, header, rows)


def comparison_table(points: Sequence[SweepPoint]) -> Cells:
  header = [
    "system", "what", "rows", "slots", "entries", "us", "roofline, us", "MB", "of copy", "of FLOPs",
    "differs",
  ]  # fmt: skip
  rows = []
  for point in points:
    shape = point.shape
    what = f"{shape.mask}, gradient" if shape.gradient else shape.mask
    sizes = (str(shape.batch), f"{shape.filled:,}", f"{shape.entries:,}")
    off = "" if point.difference is None else f"{point.difference:.1e}"
    rows.append((point.system, what, *sizes, *_figures(point), off))
  return Cells("Comparison", header, rows)


def _figures(point: SweepPoint) -> tuple[str, ...]:
  bound = (f"{1e6 * point.need.seconds(point.limits):,.1f}", f"{point.need.bytes / 1e6:,.2f}")
  if point.seconds is None:
    return (f"no: {point.why}", *bound, "", "")
  shares = (f"{point.bandwidth_share:.0%}", f"{point.flop_share:.0%}")
  return (f"{1e6 * point.seconds:,.1f}", *bound, *shares)


def latency_line(model: Latency | None, points: Sequence[SweepPoint]) -> str:
  if model is None:
    return "T-sweep: fewer than three points were measured"
  shape, limits = points[0].shape, points[0].limits
  line = f"{1e6 * model.start:,.2f} + {1e6 * model.each:,.4f} T"
  bend = "no knee" if np.isinf(model.knee) else f"knee at T = {model.knee:,.1f}"
  return (
    f"t(T) = max({1e6 * model.flat:,.2f}, {line}) us, off by at most {model.worst:.0%}; {bend}; "
    f"the roofline's is at {knee(shape, limits):,.1f}"
  )


def bandwidth_verdict(points: Sequence[SweepPoint]) -> str:
  """Says how many bandwidth-bound shapes with long caches reach 80 % of a copy, and the least."""
  long = [
    point for point in points
    if point.seconds is not None and point.shape.filled >= 8192
    and point.need.bytes / point.limits.copy_rate >= point.need.flops / point.limits.matmul_rate
  ]  # fmt: skip
  if not long:
    return "No shape of 8,192 slots or more that bandwidth bounds was measured."
  lowest = min(long, key=lambda point: point.bandwidth_share)
  reached = sum(point.bandwidth_share >= ENOUGH for point in long)
  shape = lowest.shape
  return (
    f"{reached} of {len(long)} shapes of 8,192 slots or more that bandwidth bounds reach "
    f"{ENOUGH:.0%} of a copy's; the least is {lowest.bandwidth_share:.0%}: {shape.batch} rows, "
    f"{shape.filled:,} slots, {shape.entries} entries"
  )
