"""Tables and a picture of the benchmark of attention."""

from collections.abc import Sequence
from typing import Any

from mtjax.bench.attention.kernels import AttentionShape, Timing, block_share, visible_share
from mtjax.report import plotting
from mtjax.report.cells import Cells


def tables(timings: Sequence[Timing]) -> list[Cells]:
  """Returns a table of decoding and one of training: a row per shape, a column per system."""
  parts = []
  decoding = [t for t in timings if not t.shape.gradient]
  training = [t for t in timings if t.shape.gradient]
  if decoding:
    parts.append(_table("Decoding: microseconds (temporary KiB)", decoding, _decoding, 1e6))
  if training:
    title = "Training, forward and backward: milliseconds (temporary KiB)"
    parts.append(_table(title, training, _training, 1e3))
  return parts


def _decoding(shape: AttentionShape) -> dict[str, str]:
  return {
    "entries": str(shape.entries),
    "slots": f"{shape.capacity:,}",
    "filled": f"{shape.filled:,}",
  }


def _training(shape: AttentionShape) -> dict[str, str]:
  return {
    "mask": shape.mask,
    "entries": f"{shape.entries:,}",
    "visible": f"{visible_share(shape):.0%}",
    "computed": f"{block_share(shape):.0%}",
  }


def _table(title, timings, describe, unit) -> Cells:
  systems = list(dict.fromkeys(t.system for t in timings))
  rows = []
  for shape in dict.fromkeys(t.shape for t in timings):
    by = {t.system: t for t in timings if t.shape == shape}
    first = by[systems[0]].seconds
    ratios = [f"{by[s].seconds / first:.2f}x" for s in systems[1:]]
    rows.append((*describe(shape).values(), *(_cell(by[s], unit) for s in systems), *ratios))
  header = [*describe(timings[0].shape), *systems, *(f"/ {systems[0]}: {s}" for s in systems[1:])]
  return Cells(title, header, rows)


def _cell(timing: Timing, unit: float) -> str:
  memory = "-" if timing.temporary is None else f"{timing.temporary / 1024:,.0f}"
  return f"{timing.seconds * unit:,.2f} ({memory})"


def figure(timings: Sequence[Timing]) -> Any:
  """Returns a matplotlib figure of time over size, with a line per system and shape.

  Raises ModuleNotFoundError, naming the extra, without matplotlib.
  """
  parts = [[t for t in timings if t.shape.gradient == training] for training in (False, True)]
  parts = [part for part in parts if part]
  picture = plotting.new_figure(figsize=(7 * len(parts), 5))
  axes = picture.subplots(1, len(parts), squeeze=False)
  for axis, part in zip(axes[0], parts, strict=True):
    training = part[0].shape.gradient
    _lines(axis, part, training)
    axis.set(
      xscale="log",
      yscale="log",
      xlabel="fresh entries" if training else "slots of the cache",
      ylabel="milliseconds",
      title="training, forward and backward" if training else "decoding",
    )
    axis.legend(fontsize=7)
    axis.grid(True, which="both", alpha=0.2)
  picture.tight_layout()
  return picture


def _lines(axis, part: Sequence[Timing], training: bool) -> None:
  def kind(shape):
    return shape.mask if training else f"{shape.entries} entries"

  systems = list(dict.fromkeys(t.system for t in part))
  kinds = list(dict.fromkeys(kind(t.shape) for t in part))
  for place, system in enumerate(systems):
    for color, name in enumerate(kinds):
      points = sorted(
        (t.shape.entries if training else t.shape.capacity, t.seconds * 1e3)
        for t in part
        if t.system == system and kind(t.shape) == name
      )
      style = ("-", "--", ":", "-.")[place % 4]
      axis.plot(*zip(*points, strict=True), style, color=f"C{color}", label=f"{system}, {name}")
