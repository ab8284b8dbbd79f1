"""Attention compiled for chips that are not here: python -m docs.make.kernel_table

python -m docs.make.kernel_table --output=docs/kernel_table.md
python -m docs.make.kernel_table --chips=v5e,v6e

All shapes of the table for TPUs and for CUDA: the kernel's instructions, registers, memory on the
chip and temporary memory, as the compilers say. Needs the extra `aot` (make test-aot) but no chip;
about 5 minutes on 2 cores.
"""

import sys

from absl import flags
from rich.console import Console

from mtjax.bench.compile import CHIPS, MESHES, table
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.report.compilation_tables import document, tables

_CHIPS = flags.DEFINE_list("chips", [*CHIPS, *MESHES], "Chips to compile for.")
_OUTPUT = flags.DEFINE_string("output", None, "Markdown file to write the tables to.")


def run() -> None:
  launch.check_output(_OUTPUT)
  console = Console(width=None if sys.stdout.isatty() else 150)
  results = table(_CHIPS.value, progress=lambda name: progress(f"{name} is compiled"))
  for one in tables(results):
    console.print(one.for_terminal())
  slowest = max(results, key=lambda one: one.seconds)
  console.print(f"longest: {slowest.seconds:.0f} s of CPU, {slowest.job.shape} on {slowest.chip}")
  if _OUTPUT.value is not None:
    with open(_OUTPUT.value, "w", encoding="utf-8") as file:
      file.write(document(results))


if __name__ == "__main__":
  launch.main(run)
