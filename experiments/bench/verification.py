"""Measures what judging drafts costs: the time of a pass of n entries over that of one, L(n).

    python -m experiments.bench.verification --model=smollm2

A round that judges n - 1 drafts pays if it emits more than L(n) tokens. The limit beside it is what
the weights take to be read, or to be multiplied, whichever is longer, over the measured time of a
pass of one entry.
"""

import dataclasses
import itertools

from absl import flags
from rich.console import Console

from mtjax.bench.passes.verification import Point, curve, rows_of
from mtjax.bench.systems.exported import to_bfloat16
from mtjax.bench.targets.verification import cost_targets
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.native.matmul import support
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.report import results
from mtjax.report.cells import Cells

_MODEL = flags.DEFINE_string(
  "model", "smollm2", "Model to run: a bundled one, smollm2, a folder, a GGUF file or a hub id."
)
_WEIGHTS = flags.DEFINE_list(
  "weights", ["float32", "bfloat16", "int8"], "Types of weights: float32, bfloat16, int8."
)
_THREADS = flags.DEFINE_list("threads", ["1", "2"], "Numbers of threads of the native product.")
_ENTRIES = flags.DEFINE_list(
  "entries",
  ["1", "2", "4", "6", "8", "12", "16", "24", "32"],
  "Numbers of entries; the first is 1.",
)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Number of interleaved rounds.", lower_bound=1)
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")


def table(rows: list[dict]) -> Cells:
  entries = list(dict.fromkeys(row["entries"] for row in rows))
  lines = []
  for key in dict.fromkeys((row["weights"], row["threads"]) for row in rows):
    own = [row for row in rows if (row["weights"], row["threads"]) == key]
    cells = [f"{row['cost']:.2f} ({row['limit'] / own[0]['seconds']:.2f})" for row in own]
    lines.append((f"{key[0]}, {key[1]} thread(s)", f"{own[0]['seconds'] * 1e3:.1f} ms", *cells[1:]))
  title = "L(n), in brackets the limit of reading and arithmetic"
  return Cells(title, ("weights", "n = 1", *(f"n = {n}" for n in entries[1:])), lines)


def ceilings(rows: list[dict]) -> Cells:
  lines = [
    (f"{one.weights}, n = {one.entries}", f"{one.maximum:g}", f"{one.measured:.2f}",
     f"{one.limit:.2f}", one.verdict)
    for one in cost_targets(rows)
  ]  # fmt: skip
  return Cells("Ceilings, 1 thread", ("L(n)", "at most", "measured", "limit", "verdict"), lines)


def profile(rows: list[dict]) -> Cells:
  shown = [row for row in rows if row["entries"] in (1, 8, 16)]
  lines = [
    (
      f"{row['weights']}, {row['threads']} thread(s), n = {row['entries']}",
      *(f"{row[name] * 1e3:.1f} ms" for name in ("seconds", "products")),
      f"{(row['seconds'] - row['products']) * 1e3:.1f} ms",
      *(f"{row[name] * 1e3:.1f} ms" for name in ("read", "limit")),
    )
    for row in shown
  ]
  header = ("weights", "pass", "products alone", "all else", "reading alone", "limit")
  return Cells("Where the time of a pass goes", header, lines)


def tables(rows: list[dict]) -> list[Cells]:
  return [table(rows), ceilings(rows), profile(rows)]


def publish(rows: list[dict], *, complete: bool) -> None:
  results.write(
    _RESULTS.value,
    "verification",
    tables=tables(rows),
    rows=rows,
    settings=launch.settings(__name__),
    units=dict.fromkeys(("seconds", "limit", "products", "read"), "s"),
    rounds=_ROUNDS.value,
    complete=complete,
  )


def run() -> None:
  launch.check_output(_RESULTS)
  if reason := support():
    raise ValueError(f"the native code cannot be used: {reason}")
  unknown = [name for name in _WEIGHTS.value if name not in ("float32", "bfloat16", "int8")]
  if unknown:
    raise ValueError(f"--weights={unknown[0]} is none of float32, bfloat16, int8")
  entries = [int(n) for n in _ENTRIES.value]
  rows: list[dict] = []
  for weights, threads in itertools.product(launch.distinct(_WEIGHTS), map(int, _THREADS.value)):
    text = load_pretrained(_MODEL.value)
    if weights == "bfloat16":  # of the weights alone: activations stay in float32
      text = dataclasses.replace(text, params=to_bfloat16(text.params))
    text = for_decoding(text, "stored" if weights == "bfloat16" else weights)
    where = f"{weights}, {threads} thread(s)"
    points: list[Point] = curve(
      text.model,
      text.params,
      entries,
      threads=threads,
      rounds=_ROUNDS.value,
      progress=lambda what, where=where: progress(f"{where}: {what}"),
    )
    rows += rows_of(points, weights=weights, threads=threads)
    publish(rows, complete=False)
  for cells in tables(rows):
    Console(width=150).print(cells.for_terminal())
  publish(rows, complete=True)


if __name__ == "__main__":
  launch.main(run)
