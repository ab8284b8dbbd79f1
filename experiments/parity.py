"""Compares logits and greedy tokens of all families with transformers: -m experiments.parity

Needs the extra `parity` (torch and transformers; see CONTRIBUTING). Exit code 1 when a family
differs. Expected: largest differences around 1e-5, about a minute on two CPU cores.
"""

import tempfile

from absl import flags
from rich.console import Console
from rich.table import Table

from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.evaluate import parity

_FAMILIES = flags.DEFINE_list("families", list(parity.CASES), "Families of models to compare.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the random weights.")


def run() -> int:
  unknown = [name for name in _FAMILIES.value if name not in parity.CASES]
  if unknown:
    raise ValueError(f"unknown families {unknown}; there are: {', '.join(parity.CASES)}")
  console = Console()
  table = Table("family", title=f"against transformers, tolerance {parity.TOLERANCE:.0e}")
  for column in ("no cache", "with cache"):
    table.add_column(column, justify="right")
  table.add_column(f"{parity.NEW_TOKENS} greedy tokens")
  failed = []
  for number, name in enumerate(_FAMILIES.value, 1):
    progress(f"comparing {name}, {number} of {len(_FAMILIES.value)}")
    with tempfile.TemporaryDirectory() as folder:
      oracle = parity.make_oracle(name, _SEED.value)
      oracle.save_pretrained(folder)
      result = parity.compare(oracle, folder)
    failed += [] if result.passed else [name]
    color = "green" if result.passed else "red"
    tokens = "identical" if result.same_tokens else "different"
    cells = (f"{result.uncached:.1e}", f"{result.cached:.1e}", tokens)
    table.add_row(name, *(f"[{color}]{cell}[/]" for cell in cells))
  console.print(table)
  if failed:
    console.print(f"[red]differs: {', '.join(failed)}[/]")
  return 1 if failed else 0


if __name__ == "__main__":
  launch.main(run)
