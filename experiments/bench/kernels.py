"""Attention over frontiers, time and memory: python -m experiments.bench.kernels

python -m experiments.bench.kernels --parts=training --output=run.json --plot=run.png

Implementations of frontier attention and jax.nn's attention with an explicit mask, on the same
inputs, in interleaved rounds. Decoding: T fresh entries over a cache, half full unless --filled
says otherwise. Training: T entries and no cache, forward and backward. "visible" is the share of
the T x T pairs that a mask leaves, "computed" the share of its blocks.
"""

import dataclasses
import json
import sys

from absl import flags
from rich.console import Console

from mtjax.bench.attention.kernels import MASKS, SYSTEMS, AttentionShape, compare
from mtjax.cli import flags as launch
from mtjax.report.kernel_tables import figure, tables

_PARTS = flags.DEFINE_list("parts", ["decoding", "training"], "decoding, training.")
_SYSTEMS = flags.DEFINE_list("systems", list(SYSTEMS), "Which systems.")
_ENTRIES = flags.DEFINE_list("entries", ["1", "8", "64"], "Fresh entries in decoding.")
_CAPACITIES = flags.DEFINE_list("capacities", ["512", "2048", "8192"], "Slots of the cache.")
_FILLED = flags.DEFINE_float("filled", 0.5, "Share of the cache that is committed.", 0, 1)
_LENGTHS = flags.DEFINE_list("lengths", ["512", "1024", "2048"], "Entries in training.")
_MASKS = flags.DEFINE_list("masks", [m for m in MASKS if m != "tree"], "Masks in training.")
_BATCH = flags.DEFINE_integer("batch", 1, "Rows.", 1)
_HEADS = flags.DEFINE_integer("heads", 8, "Query heads.", 1)
_KV_HEADS = flags.DEFINE_integer("kv_heads", 2, "Key heads.", 1)
_WIDTH = flags.DEFINE_integer("width", 64, "Dimensions of a head.", 1)
_DTYPE = flags.DEFINE_string("dtype", "float32", "Or bfloat16.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Interleaved rounds; medians count.", 1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for all figures.")
_PLOT = flags.DEFINE_string("plot", None, "Picture: png, pdf, svg (the extra `viz`).")


def shapes() -> list[AttentionShape]:
  heads = dict(heads=_HEADS.value, kv_heads=_KV_HEADS.value, width=_WIDTH.value)
  common = dict(batch=_BATCH.value, dtype=_DTYPE.value, **heads)
  found = []
  if "decoding" in _PARTS.value:
    for entries in map(int, _ENTRIES.value):
      for slots in map(int, _CAPACITIES.value):
        found.append(
          AttentionShape(
            "tree", entries, capacity=slots, filled=int(slots * _FILLED.value), **common
          )
        )
  if "training" in _PARTS.value:
    for mask in _MASKS.value:
      for length in map(int, _LENGTHS.value):
        found.append(AttentionShape(mask, length, gradient=True, **common))
  return found


def check(flag, known) -> None:
  """Raises ValueError for a name that is not known, before anything is compiled."""
  for name in flag.value:
    if name not in known:
      raise ValueError(f"--{flag.name}: unknown {name!r}; there are: {', '.join(known)}")


def run() -> None:
  check(_PARTS, ("decoding", "training"))
  check(_SYSTEMS, SYSTEMS)
  launch.check_output(_OUTPUT, _PLOT)
  launch.check_picture(_PLOT)
  chosen = shapes()
  console = Console(width=None if sys.stdout.isatty() else 150)
  timings = []
  with console.status("") as status:
    for shape in chosen:
      label = f"{shape.mask}, {shape.entries} entries, {shape.capacity} slots"
      timings += compare(
        shape,
        _SYSTEMS.value,
        rounds=_ROUNDS.value,
        progress=lambda what, label=label: status.update(f"{label}: {what}"),
      )
  for table in tables(timings):
    console.print(table.for_terminal())
  if _OUTPUT.value is not None:
    with open(_OUTPUT.value, "w", encoding="utf-8") as file:
      json.dump([dataclasses.asdict(timing) for timing in timings], file, indent=2)
  if _PLOT.value is not None:
    figure(timings).savefig(_PLOT.value, dpi=120)


if __name__ == "__main__":
  launch.main(run)
