"""Tables of latency profiles: measured times, the roofline beside them, and the trees of both."""

import statistics
from collections.abc import Sequence

import numpy as np

from mtjax.bench.planning.latency import LatencyCell, LatencyFindings
from mtjax.report.cells import Cells
from mtjax.tuning.plan import PlannedRound
from mtjax.tuning.roofline import Hardware, roofline_errors

_PARTS = (
  "", "plain round, ms", "fixed cost per round, ms", "one step of drafting, ms",
  "each further step, ms", "largest error of the monotone fit", "error of rounds kept out",
  "median error of the roofline",
)  # fmt: skip
_TREES = (
  "", "drafts by the measured times", "depth", "tokens per round", "over plain decoding",
  "drafts by the roofline", "depth", "tokens per round", "over plain decoding",
  "the same by the measured times",
)  # fmt: skip
_TIMES = (
  "entries per row", "measured, ms", "monotone fit, ms", "its error", "roofline, ms", "its error",
  "error of the data sheet",
)  # fmt: skip


def latency_tables(found: LatencyFindings) -> list[Cells]:
  """Returns the parts of rounds, the trees, the roofline's parameters, and each cell's passes."""
  return [
    Cells("parts of a round", _PARTS, [_parts(found, cell) for cell in found.cells]),
    Cells("chosen trees", _TREES, [_trees(found, cell) for cell in found.cells]),
    _roofline(found),
    *(_times(found, cell) for cell in found.cells),
  ]


def latency_notes(found: LatencyFindings) -> list[str]:
  """Returns sentences: the errors of the rooflines and of the fits, the rates, what did not fit."""
  sheet, fit = np.abs(found.sheet_errors), found.fit
  kept_out = [abs(one) for cell in found.cells for one in cell.curve.round_errors]
  out = [
    f"One roofline for all {len(fit.errors)} measured passes has a median error of "
    f"{_share(fit.median)} and a largest error of {_share(fit.worst)}; that of the data sheet "
    f"({found.sheet.name}) has {_share(np.median(sheet))} and {_share(sheet.max())}. The points "
    f"determine {', '.join(fit.determined) or 'no parameter'}.",
    "The monotone fit is at most "
    f"{_share(max(cell.curve.verify.worst for cell in found.cells))} away from a measured pass.",
  ]
  if kept_out:
    out.append(
      f"Whole rounds that took no part in the fit are predicted with a median error of "
      f"{_share(statistics.median(kept_out))} and a largest error of {_share(max(kept_out))}."
    )
  ranks = ", ".join(f"{rate:g}" for rate in found.rates[0])
  out.append(f"Trees are for drafts that are accepted at rates of {ranks} by rank, at every depth.")
  return [*out, *(f"{sentence}." for sentence in found.left_out)]


def _parts(found: LatencyFindings, cell: LatencyCell) -> Sequence[str]:
  curve = cell.curve
  return (
    cell.title,
    _ms(curve.plain),
    _ms(curve.fixed),
    _ms(float(curve.draft(max(curve.draft.amount[0], 1)))),
    _ms(cell.seconds_per_step),
    _share(curve.verify.worst),
    ", ".join(f"{100 * one:+.1f} %" for one in curve.round_errors),
    _share(np.median(np.abs(roofline_errors(found.fit.hardware, cell.points)))),
  )


def _trees(found: LatencyFindings, cell: LatencyCell) -> Sequence[str]:
  plans = found.plans(cell)
  return (
    cell.title,
    *_tree(plans.measured.choice, plans.measured.speedup),
    *_tree(plans.predicted.choice, plans.predicted.speedup),
    f"{plans.tried_speedup:.3f}",
  )


def _tree(one: PlannedRound, speedup: float) -> Sequence[str]:
  return (
    f"{one.topology.size - 1}",
    f"{one.topology.height}",
    f"{one.expected_tokens:.3f}",
    f"{speedup:.3f}",
  )


def _roofline(found: LatencyFindings) -> Cells:
  fit = found.fit
  before, after = (
    _parameters(one, sorted({cell.shape.dtype for cell in found.cells}))
    for one in (found.sheet, fit.hardware)
  )
  rows = [
    (name, f"{old:.4g}", f"{after[name][0]:.4g}", "yes" if field in fit.determined else "no")
    for name, (old, field) in before.items()
  ]
  header = ("parameter", f"{found.sheet.name}, data sheet", "fitted", "determined by the points")
  return Cells("the roofline of this machine", header, rows)


def _parameters(hardware: Hardware, dtypes: Sequence[str]) -> dict[str, tuple[float, str]]:
  """Returns the parameters in readable units, each with the field that the fit calls it by."""
  return {
    **{f"{dtype}, TFLOP/s": (hardware.flops[dtype] / 1e12, "flops") for dtype in dtypes},
    "memory, GB/s": (hardware.bandwidth / 1e9, "bandwidth"),
    "start of a pass, us": (1e6 * hardware.start, "start"),
    "start of a layer, us": (1e6 * hardware.start_per_layer, "start"),
    "links, GB/s": (hardware.link / 1e9, "link"),
    "start of a collective, us": (1e6 * hardware.link_start, "link_start"),
  }


def _times(found: LatencyFindings, cell: LatencyCell) -> Cells:
  verify, hardware = cell.curve.verify, found.fit.hardware
  errors = roofline_errors(hardware, cell.points)
  sheet = roofline_errors(found.sheet, cell.points)
  rows = [
    (
      f"{entries}",
      _ms(verify.measured[place]),
      _ms(verify.fitted[place]),
      f"{100 * verify.errors[place]:+.1f} %",
      _ms(verify.measured[place] * (1 + errors[place])),
      f"{100 * errors[place]:+.1f} %",
      f"{100 * sheet[place]:+.1f} %",
    )
    for place, entries in enumerate(verify.amount)
  ]
  return Cells(f"{cell.title}: a pass of the target", _TIMES, rows)


def _ms(seconds: float) -> str:
  return f"{1e3 * seconds:.3f}"


def _share(value: float) -> str:
  return f"{100 * value:.1f} %"
