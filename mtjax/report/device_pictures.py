"""A picture of attention measured on a device: its bandwidth, and the time of a layer over T."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtjax.bench.attention.sweep import SweepPoint
from mtjax.bench.latency_model import Latency
from mtjax.report import plotting
from mtjax.report.device_tables import ENOUGH

_MARKERS = "os^Dvx*P"


def figure(
  sweep: Sequence[SweepPoint], entries: Sequence[SweepPoint], model: Latency | None
) -> Any:
  """Draws the bandwidth over slots, a line per T, beside a copy's; and the T-sweep and its fit.

  Raises ModuleNotFoundError, naming the extra, without matplotlib.
  """
  picture = plotting.new_figure(figsize=(14, 5.5))
  left, right = picture.subplots(1, 2)
  _bandwidth(left, [point for point in sweep if point.seconds is not None])
  _latency(right, [point for point in entries if point.seconds is not None], model)
  for axis in (left, right):
    axis.grid(True, alpha=0.2)
  picture.tight_layout()
  return picture


def _bandwidth(axis, points):
  axis.set(xlabel="filled slots", ylabel="GB/s of what must be read or written")
  axis.set_title("bandwidth reached")
  if not points:
    return
  shapes = {point.shape.entries for point in points}, {point.shape.batch for point in points}
  colors = {entries: f"C{place % 10}" for place, entries in enumerate(sorted(shapes[0]))}
  markers = {
    batch: _MARKERS[place % len(_MARKERS)] for place, batch in enumerate(sorted(shapes[1]))
  }
  lines: dict[tuple, list] = {}
  for point in points:
    kind = point.shape.entries, point.shape.batch, point.page is None
    lines.setdefault(kind, []).append((point.shape.filled, point.need.bytes / point.seconds / 1e9))
  for (entries, batch, rows), line in lines.items():
    style = dict(ls="-" if rows else "--", marker=markers[batch], color=colors[entries])
    axis.plot(*zip(*sorted(line), strict=True), ms=5, lw=1, **style)
  rate = points[0].limits.copy_rate / 1e9
  axis.axhline(rate, color="black", lw=1.5)
  axis.axhline(ENOUGH * rate, color="black", lw=1, ls=":")
  # One entry per color, marker and style: one per combination would be too many.
  names: list[tuple[str, dict[str, Any]]] = []
  names += [(f"T = {t}", dict(color=color)) for t, color in colors.items()]
  names += [(f"B = {b}", dict(color="gray", marker=m, ls="")) for b, m in markers.items()]
  names += [("rows", dict(color="gray")), ("pages", dict(color="gray", ls="--"))]
  names += [
    ("a copy", dict(color="black", lw=1.5)),
    (f"{ENOUGH:.0%} of it", dict(color="black", lw=1, ls=":")),
  ]
  handles = [axis.plot([], [], label=name, **style)[0] for name, style in names]
  axis.set(xscale="log", ylim=(0, None))
  axis.legend(handles=handles, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
  _ticks(axis, {point.shape.filled for point in points})


def _latency(axis, points, model):
  axis.set(xlabel="fresh entries T", ylabel="microseconds")
  if not points:
    return
  t = [point.shape.entries for point in points]
  axis.plot(t, [1e6 * point.seconds for point in points], "o", color="C0", label="measured")
  roofline = [1e6 * point.need.seconds(point.limits) for point in points]
  axis.plot(t, roofline, color="black", lw=1, label="roofline")
  if model is not None:
    along = np.geomspace(min(t), max(t), 200)
    axis.plot(along, 1e6 * model(along), color="C1", label="fitted")
    if min(t) <= model.knee <= max(t):
      axis.axvline(model.knee, color="C1", ls=":", label=f"knee, T = {model.knee:.0f}")
  shape = points[0].shape
  axis.set_title(f"one layer over {shape.filled:,} slots, batch {shape.batch}")
  axis.set(xscale="log", yscale="log")
  axis.legend(fontsize=8)
  _ticks(axis, set(t))


def _ticks(axis, values):
  """Sets ticks at the measured values instead of powers of ten."""
  axis.set_xticks(sorted(values), [f"{value:,}" for value in sorted(values)])
  axis.set_xticks([], minor=True)
