"""Compares decoding speed with other systems on the same weights.

    python -m experiments.bench.autoregressive

The model is exported once in the transformers format; every system runs in its own process, pinned
to the same cores, in interleaved rounds. Rates are medians with quartiles; ratios are relative to
`--reference` in the same rounds. Systems that are not installed are named and left out.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
from absl import flags
from rich.console import Console
from rich.table import Table

from mtjax import checkpoints
from mtjax.bench.systems import SYSTEMS
from mtjax.bench.systems.exported import link_gguf
from mtjax.bench.targets.plain import plain_targets
from mtjax.bench.workers import WorkerRow, compare, get_system
from mtjax.cli import flags as launch
from mtjax.cli.running import progress, results_file
from mtjax.evaluate.prompt_windows import demo_windows
from mtjax.models import count_parameters
from mtjax.native.bandwidth import measure_bandwidth
from mtjax.pretrained import BUNDLED, load_pretrained
from mtjax.report import results
from mtjax.report.cells import Cells
from mtjax.report.speed.tables import autoregressive_table, targets_table
from mtjax.text import TextModel

_MODEL = flags.DEFINE_string(
  "model", "target", "Model to decode with: a bundled one, a folder or a Hugging Face id."
)
_SYSTEMS = flags.DEFINE_list("systems", list(SYSTEMS), "Systems to compare.")
_REFERENCE = flags.DEFINE_string(
  "reference", "transformers eager", "System that ratios are relative to."
)
_BATCHES = flags.DEFINE_list("batches", ["1", "8"], "Batch sizes to measure.")
_THREADS = flags.DEFINE_list(
  "threads", ["1", "2"], "Numbers of threads to measure; they are pinned to cores."
)
_TOKENS = flags.DEFINE_integer("tokens", 128, "Number of new tokens per row.", lower_bound=1)
_PROMPT = flags.DEFINE_integer("prompt_tokens", 32, "Number of tokens per prompt.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Number of interleaved rounds.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write all figures to.")
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")

# Bytes per weight as a system reads it, to compute the share of the memory bandwidth; others: 4.
_BYTES = {"int8": 1, "q8_0": 34 / 32, "bf16": 2, "f16": 2, "bfloat16": 2}


def bytes_read(text: TextModel, file: Path | None) -> Callable[[str], int]:
  """Returns a function from a system to the bytes of weights that it reads per token."""
  matrices = [leaf for leaf in jax.tree.leaves(text.params) if leaf.ndim > 1]
  sizes = {variant: int(count_parameters(text.params) * size) for variant, size in _BYTES.items()}
  sizes["stored"] = sum(leaf.nbytes for leaf in matrices)
  if file is not None:
    sizes["file"] = file.stat().st_size
  whole = 4 * count_parameters(text.params)
  return lambda system: sizes.get(SYSTEMS[system].settings["variant"], whole)


def show(console, rows: list[WorkerRow], *, batch: int, threads: int, size_of) -> list[dict]:
  title = f"batch {batch}, {threads} thread{'s' * (threads > 1)}"
  table = Table(title=title)
  table.add_column("system", no_wrap=True)
  for column in ("tokens/s", "quartiles", "ratio", "same text", "of bandwidth"):
    table.add_column(column, justify="right")
  records = []
  for row in rows:
    size = size_of(row.system)
    # A batch reads the weights once for all its rows.
    limit = measure_bandwidth(size, threads) * 1e9 / size * batch
    share = row.median / limit
    low, high = row.quartiles
    cells = (f"{row.median:,.0f}", f"{low:,.0f}-{high:,.0f}", f"{row.ratio:.2f}")
    table.add_row(row.system, *cells, f"{row.same_text:.2f}", f"{share:.0%}")
    figures = dict(median=row.median, limit=limit, bandwidth_share=share)
    records.append(dict(vars(row), batch=batch, threads=threads, **figures))
  console.print(table)
  return records


def tables(records: list[dict]) -> list[Cells]:
  """Returns the table of all systems and, for a pretrained model, the floors of each case."""
  floors = []
  if _MODEL.value not in BUNDLED:
    for threads in dict.fromkeys(record["threads"] for record in records):
      if targets := plain_targets(records, threads):
        floors.append(targets_table(targets, f"batch 1, {threads} thread{'s' * (threads > 1)}"))
  return [autoregressive_table(records, _REFERENCE.value), *floors]


def publish(records: list[dict], failed: dict[str, str], *, complete: bool) -> None:
  results.write(
    _RESULTS.value,
    "autoregressive",
    tables=tables(records),
    rows=records,
    settings=launch.settings(__name__),
    units=dict(tokens_per_second="tokens/s", median="tokens/s", limit="tokens/s"),
    rounds=_ROUNDS.value,
    notes=[f"{name} did not run: {why}" for name, why in failed.items()],
    complete=complete,
  )


def run() -> None:
  launch.check_output(_OUTPUT, _RESULTS)
  get_system(_SYSTEMS.value, SYSTEMS)
  console = Console()
  text = load_pretrained(_MODEL.value)
  records, failed = [], {}
  own = flags.FLAGS.get_flags_for_module(sys.modules[__name__])
  settings = {flag.name: flag.value for flag in own}
  cases = list(itertools.product(map(int, _THREADS.value), map(int, _BATCHES.value)))
  with tempfile.TemporaryDirectory() as folder, results_file(_OUTPUT.value) as write:
    checkpoints.save(folder, text.model, text.params, tokenizer=text.tokenizer)
    size_of = bytes_read(text, link_gguf(folder, _MODEL.value))
    for number, (threads, batch) in enumerate(cases, 1):
      where = f"batch {batch}, {threads} threads, {number} of {len(cases)}"
      rows, failed = compare(
        folder,
        _SYSTEMS.value,
        demo_windows(text.tokenizer, count=batch, length=_PROMPT.value),
        reference=_REFERENCE.value,
        tokens=_TOKENS.value,
        threads=threads,
        rounds=_ROUNDS.value,
        progress=lambda what, where=where: progress(f"{where}: {what}"),
      )
      records += show(console, rows, batch=batch, threads=threads, size_of=size_of)
      write(dict(settings=settings, results=records))
      publish(records, failed, complete=False)
      for name, why in failed.items():
        console.print(f"{name}: {why}", style="yellow", markup=False)
  for floors in tables(records)[1:]:
    console.print(floors.for_terminal())
  publish(records, failed, complete=True)


if __name__ == "__main__":
  launch.main(run)
