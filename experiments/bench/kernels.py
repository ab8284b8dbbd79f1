"""Time and memory of attention over frontiers: python -m experiments.bench.kernels

python -m experiments.bench.kernels --parts=training --output=run.json --plot=run.png

Compares implementations of frontier attention and jax.nn's attention with an explicit mask, on the
same inputs, in interleaved rounds. Decoding has T fresh entries over a cache, half full unless
--filled says otherwise. Training has T entries and no cache, forward and backward. "visible" is the
share of the T x T pairs that a mask leaves, "computed" the share of its blocks.
"""

import dataclasses
import sys
from collections.abc import Sequence

from absl import flags
from rich.console import Console

from mtjax.bench.attention.kernels import MASKS, SYSTEMS, AttentionShape, Timing, compare
from mtjax.cli import flags as launch
from mtjax.cli.running import progress, results_file
from mtjax.report import results
from mtjax.report.kernel_tables import figure, tables

_PARTS = flags.DEFINE_list("parts", ["decoding", "training"], "Parts to run: decoding, training.")
_SYSTEMS = flags.DEFINE_list("systems", list(SYSTEMS), "Systems to compare.")
_ENTRIES = flags.DEFINE_list("entries", ["1", "8", "64"], "Numbers of fresh entries in decoding.")
_CAPACITIES = flags.DEFINE_list(
  "capacities", ["512", "2048", "8192"], "Numbers of slots of the cache in decoding."
)
_FILLED = flags.DEFINE_float("filled", 0.5, "Share of the cache that is committed.", 0, 1)
_LENGTHS = flags.DEFINE_list("lengths", ["512", "1024", "2048"], "Numbers of entries in training.")
_MASKS = flags.DEFINE_list(
  "masks", [m for m in MASKS if m != "tree"], "Masks to measure in training."
)
_BATCH = flags.DEFINE_integer("batch", 1, "Number of rows.", 1)
_HEADS = flags.DEFINE_integer("heads", 8, "Number of query heads.", 1)
_KV_HEADS = flags.DEFINE_integer("kv_heads", 2, "Number of key heads.", 1)
_WIDTH = flags.DEFINE_integer("width", 64, "Number of dimensions per head.", 1)
_DTYPE = flags.DEFINE_string("dtype", "float32", "Type of the arrays: float32 or bfloat16.")
_ROUNDS = flags.DEFINE_integer(
  "rounds", 5, "Number of interleaved rounds that medians are over.", 1
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write all figures to.")
_RESULTS = flags.DEFINE_string("results", None, "JSON file that documents are made from.")
_PLOT = flags.DEFINE_string(
  "plot", None, "Picture (png, pdf, svg) to draw; it needs the extra `viz`."
)


def shapes() -> list[AttentionShape]:
  heads = dict(heads=_HEADS.value, kv_heads=_KV_HEADS.value, width=_WIDTH.value)
  common = dict(batch=_BATCH.value, dtype=_DTYPE.value, **heads)
  chosen = []
  if "decoding" in _PARTS.value:
    for entries in map(int, _ENTRIES.value):
      for slots in map(int, _CAPACITIES.value):
        chosen.append(
          AttentionShape(
            "tree", entries, capacity=slots, filled=int(slots * _FILLED.value), **common
          )
        )
  if "training" in _PARTS.value:
    for mask in _MASKS.value:
      for length in map(int, _LENGTHS.value):
        chosen.append(AttentionShape(mask, length, gradient=True, **common))
  return chosen


def check(flag, known) -> None:
  """Raises ValueError for a name that is not known, before anything is compiled."""
  for name in flag.value:
    if name not in known:
      raise ValueError(f"--{flag.name}: unknown {name!r}; there are: {', '.join(known)}")


def publish(timings: Sequence[Timing], *, complete: bool) -> None:
  results.write(
    _RESULTS.value,
    "kernels",
    tables=tables(timings),
    rows=[dataclasses.asdict(timing) for timing in timings],
    settings=launch.settings(__name__),
    units=dict(seconds="s", temporary="bytes"),
    rounds=_ROUNDS.value,
    complete=complete,
  )


def run() -> None:
  check(_PARTS, ("decoding", "training"))
  check(_SYSTEMS, SYSTEMS)
  launch.check_output(_OUTPUT, _PLOT, _RESULTS)
  launch.check_picture(_PLOT)
  chosen = shapes()
  console = Console(width=None if sys.stdout.isatty() else 150)
  timings = []
  own = flags.FLAGS.get_flags_for_module(sys.modules[__name__])
  settings = {flag.name: flag.value for flag in own}
  with results_file(_OUTPUT.value) as write:
    for number, shape in enumerate(chosen, 1):
      label = f"{shape.mask}, {shape.entries} entries, {shape.capacity} slots"
      label += f", {number} of {len(chosen)}"
      timings += compare(
        shape,
        _SYSTEMS.value,
        rounds=_ROUNDS.value,
        progress=lambda what, label=label: progress(f"{label}: {what}"),
      )
      rows = [dataclasses.asdict(timing) for timing in timings]
      write(dict(settings=settings, results=rows))
      publish(timings, complete=number == len(chosen))
  for table in tables(timings):
    console.print(table.for_terminal())
  if _PLOT.value is not None:
    figure(timings).savefig(_PLOT.value, dpi=120)


if __name__ == "__main__":
  launch.main(run)
