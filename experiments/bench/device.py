"""Attention on an accelerator: is it right, how near to its limits, beside what others offer.

python -m experiments.bench.device --output=device.json --plot=device.png

Four parts: `correctness` of every implementation that works here against float64 numpy;
`bandwidth` reached over rows, slots and entries, and `entries`, one layer over its T, beside the
copy bandwidth and the matmul rate of this device; `comparison` with jax.nn's attention and
FlexAttention. Exit status 1 if something is wrong. With --sizes=toy it runs anywhere.
"""

import json
import sys

from absl import flags
from rich.console import Console

from mtjax.bench.attention import device as device_benchmark
from mtjax.bench.attention.device import PARTS, DevicePlan
from mtjax.cli import flags as launch
from mtjax.report import device_pictures, device_tables

_PARTS = flags.DEFINE_list("parts", list(PARTS), ", ".join(PARTS) + ".")
_SIZES = flags.DEFINE_enum("sizes", "full", ["full", "toy"], "toy: shapes that run anywhere.")
_IMPLEMENTATION = flags.DEFINE_string("implementation", None, "Which is swept; default: the best.")
_ROWS = flags.DEFINE_list("rows", None, "Rows in the bandwidth part; full: 1,4,8,32.")
_SLOTS = flags.DEFINE_list("slots", None, "Its filled slots; full: 2048,8192,32768.")
_ENTRIES = flags.DEFINE_list("entries", None, "Its fresh entries; full: 1,8,16,32,64.")
_PAGE = flags.DEFINE_integer("page", None, "Slots of a page; full: 128 on a GPU, else 256.", 1)
_DTYPE = flags.DEFINE_string("dtype", None, "full: bfloat16, toy: float32.")
_ROUNDS = flags.DEFINE_integer("rounds", None, "Medians over so many; full: 5.", 1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file, written again with every figure.")
_PLOT = flags.DEFINE_string("plot", None, "Picture: png, pdf, svg (the extra `viz`).")


def plan() -> DevicePlan:
  settings = dict(
    implementation=_IMPLEMENTATION.value, page=_PAGE.value, dtype=_DTYPE.value,
    rounds=_ROUNDS.value, rows=_numbers(_ROWS), slots=_numbers(_SLOTS), entries=_numbers(_ENTRIES),
  )  # fmt: skip
  given = {name: value for name, value in settings.items() if value is not None}
  make = device_benchmark.full if _SIZES.value == "full" else device_benchmark.toy
  return make(parts=tuple(_PARTS.value), **given)


def _numbers(holder) -> tuple[int, ...] | None:
  try:
    return None if holder.value is None else tuple(map(int, holder.value))
  except ValueError:
    raise ValueError(f"--{holder.name} are whole numbers, not {','.join(holder.value)}") from None


def run() -> int:
  launch.check_output(_OUTPUT, _PLOT)
  launch.check_picture(_PLOT)
  settings = plan()
  console = Console(width=None if sys.stdout.isatty() else 170)
  report = device_benchmark.DeviceReport()
  with console.status("") as status:
    for part, report, ended in device_benchmark.benchmark(settings, status.update):
      if ended:
        for piece in device_tables.pieces(part, report, settings.swept):
          console.print(piece)
      if _OUTPUT.value is not None:
        with open(_OUTPUT.value, "w", encoding="utf-8") as file:
          json.dump(report.figures(), file, indent=2)
  if _PLOT.value is not None:
    drawn = device_pictures.figure(report.sweep, report.entries, report.latency)
    drawn.savefig(_PLOT.value, dpi=120)
  for verdict in report.failed:
    print(f"wrong: {verdict.implementation}, {verdict.case}: {verdict.why}", file=sys.stderr)
  return 1 if report.failed else 0


if __name__ == "__main__":
  launch.main(run)
