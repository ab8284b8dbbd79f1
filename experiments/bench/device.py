"""Attention on an accelerator: its correctness, its distance from the limits, and other systems.

python -m experiments.bench.device --output=device.json --plot=device.png

It has four parts. `correctness` compares every implementation that works here with float64 numpy.
`bandwidth` measures the bandwidth reached for numbers of rows, slots and entries; `entries`
measures one layer over its number of entries T, beside the copy bandwidth and the matmul rate of
this device. `comparison` measures jax.nn's attention and FlexAttention as well. The exit status is
1 if a result is wrong. With --sizes=toy it runs anywhere.
"""

import sys

from absl import flags
from rich.console import Console

from mtjax.bench.attention import device as device_benchmark
from mtjax.bench.attention.device import PARTS, DevicePlan, DeviceReport
from mtjax.cli import flags as launch
from mtjax.cli.running import progress, results_file
from mtjax.report import device_pictures, device_tables, results

_PARTS = flags.DEFINE_list("parts", list(PARTS), "Parts to run, of " + ", ".join(PARTS) + ".")
_SIZES = flags.DEFINE_enum(
  "sizes",
  "full",
  ["full", "toy"],
  "full: shapes for an accelerator; toy: small shapes that run anywhere.",
)
_IMPLEMENTATION = flags.DEFINE_string(
  "implementation", None, "Implementation to time. Default: the kernel of this platform, or xla."
)
_ROWS = flags.DEFINE_list(
  "rows", None, "Numbers of rows in part bandwidth; with --sizes=full 1,4,8,32."
)
_SLOTS = flags.DEFINE_list(
  "slots", None, "Numbers of filled slots in part bandwidth; with --sizes=full 2048,8192,32768."
)
_ENTRIES = flags.DEFINE_list(
  "entries", None, "Numbers of fresh entries in part bandwidth; with --sizes=full 1,8,16,32,64."
)
_PAGE = flags.DEFINE_integer(
  "page", None, "Number of slots per page; with --sizes=full 128 on a GPU and 256 elsewhere.", 1
)
_DTYPE = flags.DEFINE_string(
  "dtype", None, "Type of arrays; with --sizes=full bfloat16, with toy float32."
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", None, "Number of rounds that a median is over; with --sizes=full 5.", 1
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "JSON file of all figures, written again after each one."
)
_RESULTS = flags.DEFINE_string("results", None, "JSON file that documents are made from.")
_PLOT = flags.DEFINE_string(
  "plot", None, "Picture (png, pdf, svg) to draw; it needs the extra `viz`."
)


def plan() -> DevicePlan:
  settings = dict(
    implementation=_IMPLEMENTATION.value, page=_PAGE.value, dtype=_DTYPE.value,
    rounds=_ROUNDS.value, rows=_numbers(_ROWS), slots=_numbers(_SLOTS), entries=_numbers(_ENTRIES),
  )  # fmt: skip
  present = {name: value for name, value in settings.items() if value is not None}
  make = device_benchmark.full if _SIZES.value == "full" else device_benchmark.toy
  return make(parts=tuple(_PARTS.value), **present)


def _numbers(holder) -> tuple[int, ...] | None:
  try:
    return None if holder.value is None else tuple(map(int, holder.value))
  except ValueError:
    raise ValueError(
      f"--{holder.name} must be whole numbers, not {','.join(holder.value)}"
    ) from None


def publish(report: DeviceReport, settings: DevicePlan, *, complete: bool) -> None:
  limits = report.limits
  rates = limits and {
    "copy, GB/s": round(limits.copy_rate / 1e9, 1),
    "matmul, TFLOP/s": round(limits.matmul_rate / 1e12, 2),
  }
  results.write(
    _RESULTS.value,
    "device",
    tables=device_tables.tables(report, settings.swept),
    rows=report.figures(),
    settings=launch.settings(__name__),
    units=dict(seconds="s", bytes="bytes", copy_rate="bytes/s", matmul_rate="FLOP/s"),
    rounds=settings.rounds,
    limits=rates,
    notes=device_tables.sentences(report),
    complete=complete,
  )


def run() -> int:
  launch.check_output(_OUTPUT, _PLOT, _RESULTS)
  launch.check_picture(_PLOT)
  settings = plan()
  console = Console(width=None if sys.stdout.isatty() else 170)
  report = DeviceReport()
  with results_file(_OUTPUT.value) as write:
    for part, report, ended in device_benchmark.benchmark(settings, progress):
      if ended:
        publish(report, settings, complete=False)
        for piece in device_tables.pieces(part, report, settings.swept):
          console.print(piece)
      write(report.figures())
  publish(report, settings, complete=True)
  if _PLOT.value is not None:
    picture = device_pictures.figure(report.sweep, report.entries, report.latency)
    picture.savefig(_PLOT.value, dpi=120)
  for verdict in report.failed:
    print(f"wrong: {verdict.implementation}, {verdict.case}: {verdict.why}", file=sys.stderr)
  return 1 if report.failed else 0


if __name__ == "__main__":
  launch.main(run)
