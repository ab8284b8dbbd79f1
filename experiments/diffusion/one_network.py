r"""The one-network table: one text, tokenizer and network, trained for five ways to write.

python -m experiments.diffusion.one_network --runs=runs/one_network \
  --results=results/one_network.json

--runs has a training run per objective, RUNS/OBJECTIVE, made by configs/train/one_network.py with
equal compute: the number of entries that pass through the network, forward and backward. Bits per
byte are exactly those of a model or a bound of them; the table says which. The middle of a row is
scored given the tokens on both sides where the model sees both.
"""

import json
import sys
from pathlib import Path

from absl import flags
from rich.console import Console

from mtjax.cli import flags as launch
from mtjax.cli.running import progress

_RUNS = flags.DEFINE_string("runs", "runs/one_network", "Folder of the five training runs.")
_TEXT = flags.DEFINE_string("text", "builtin:tinyshakespeare#split=valid", "Text to score.")
_ROWS = flags.DEFINE_integer("rows", 64, "Number of rows to score and to continue.", 2)
_JUDGE = flags.DEFINE_string("judge", "target", "Causal model that judges the texts.")
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")


def run() -> None:
  launch.check_output(_RESULTS)
  # Imported here: a mistake in the command is answered at once.
  from mtjax.evaluate import one_network
  from mtjax.evaluate.generative import load_judge
  from mtjax.report import results
  from mtjax.report.diffusion.one_network import one_network_table
  from mtjax.train.export import CONFIG_FILE, load_trained

  folders = {name: Path(_RUNS.value) / name for name in one_network.ENTRIES}
  for folder in folders.values():
    if not folder.is_dir():
      raise ValueError(f"there is no run {str(folder)!r}: configs/train/one_network.py makes it")
  judge, rows = load_judge(_JUDGE.value), {}
  for name, folder in folders.items():
    progress(f"measuring {name}, {len(rows) + 1} of {len(folders)}")
    model, step = load_trained(folder)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    sizes = dict(length=config["length"], batch=config["batch"], step=step)
    rows[name] = one_network.measure(name, model, _TEXT.value, judge, count=_ROWS.value, **sizes)
  table = one_network_table(rows)
  Console(file=sys.stdout, width=150).print(table.for_terminal())
  results.write(
    _RESULTS.value,
    "one_network",
    tables=[table],
    rows=rows,
    units=dict(bits="bits per byte", middle="bits per byte", entropy="bits per token"),
    rounds=1,
    settings=dict(text=_TEXT.value, rows=_ROWS.value, judge=_JUDGE.value),
    notes=one_network.NOTES,
  )


if __name__ == "__main__":
  launch.main(run)
