"""One S2D draft for several targets (2407.01955): python -m experiments.bench.sorted

Compares it with the same network left after a fixed number of layers, and with a separate draft for
every target. A model is a bundled one, a folder or a hub id; NAME:int8 decodes it with int8
weights, which is another target. The batch is 1, and figures are medians over interleaved rounds;
memory is that of the drafts' weights for all targets together, in the format that decoding uses.

python -m experiments.bench.sorted --targets=target,target:int8 --sorted=models/sorted \
  --separate=draft,draft:int8 --data=DATA --sets=specbench,gsm8k --temperature=1
"""

import jax
from absl import flags
from rich.console import Console

from mtjax.bench.shared_draft import Counted, candidates, figures, measure
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.decode.method import Autoregressive
from mtjax.draft import S2D
from mtjax.evaluate.sets import prompts as prompt_sets
from mtjax.pretrained import DEMO_PROMPTS, for_decoding, load_pretrained
from mtjax.registry.drafters import check_vocabulary
from mtjax.report import results
from mtjax.report.cells import Cells
from mtjax.sampling.logits import Sampling

_TARGETS = flags.DEFINE_list(
  "targets", ["target", "target:int8"], "Target models, each NAME or NAME:int8."
)
_SORTED = flags.DEFINE_string("sorted", "sorted", "Draft model that all targets share.")
_EXITS = flags.DEFINE_list(
  "exits",
  [],
  "Numbers of layers after which the shared draft may be left. Default: those of its training.",
)
_THRESHOLDS = flags.DEFINE_list(
  "thresholds",
  [],
  "Minimum probability of its argmax token to leave at each exit. Default: 0.5, and 0 at the last.",
)
_SEPARATE = flags.DEFINE_list(
  "separate", ["draft", "draft:int8"], "Separate draft model for each target, in the same order."
)
_DATA = flags.DEFINE_string(
  "data", None, "Folder of prompt sets. Default: the demo's prompts instead."
)
_SETS = flags.DEFINE_list(
  "sets", ["specbench", "gsm8k", "humaneval"], "Prompt sets in --data to measure."
)
_PROMPTS = flags.DEFINE_integer("prompts", 4, "Number of prompts per set.", lower_bound=1)
_TOKENS = flags.DEFINE_integer("tokens", 64, "Number of new tokens per prompt.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 4, "Number of tokens to draft per round.", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float(
  "temperature", 0.0, "Temperature to sample with; 0 is greedy.", lower_bound=0
)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Number of interleaved rounds.", lower_bound=1)
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")
_KEPT = 64  # tokens kept per prompt


def load(name):
  name, _, weights = name.partition(":")
  return for_decoding(load_pretrained(name), weights or "stored")


def read_prompts() -> list[str]:
  if _DATA.value is None:
    return list(DEMO_PROMPTS)
  sets = [prompt_sets.prompts(_DATA.value, name, _PROMPTS.value) for name in _SETS.value]
  return [prompt for texts in sets for prompt in texts]


def table_of(name: str, runs_of: dict, compared: dict) -> Cells:
  rows = []
  for key, runs in runs_of.items():
    leaves = jax.tree.leaves(compared[key].memory) if key in compared else []
    cells = figures(runs, compared[key].exits if key in compared else ())
    memory = sum(leaf.nbytes for leaf in leaves) / 1e6
    rows.append((key, *cells.values(), f"{memory:.2f}"))
  header = ("draft", "accepted", "tokens/forward", "ms/token", "layers", "MB")
  return Cells(f"{name}, temperature {_TEMPERATURE.value:g}", header, rows)


def run() -> None:
  launch.check_output(_RESULTS)
  targets = {name: load(name) for name in _TARGETS.value}
  separate, shared = [load(name) for name in _SEPARATE.value], load(_SORTED.value)
  if len(separate) != len(targets):
    raise ValueError(f"{len(separate)} separate drafts for {len(targets)} targets")
  exits, sure = tuple(map(int, _EXITS.value)), tuple(map(float, _THRESHOLDS.value))
  adaptive = S2D(shared.model, exits, sure, _LENGTH.value)
  # Only the ends of long prompts: every length in another bucket compiles again.
  prompts = [shared.tokenizer.encode(prompt)[-_KEPT:] for prompt in read_prompts()]
  given = dict(max_tokens=_TOKENS.value, sampling=Sampling(temperature=_TEMPERATURE.value))
  rows, tables = {}, []
  for index, (name, target) in enumerate(targets.items()):
    of_all = f"{name}, target {index + 1} of {len(targets)}"
    for draft in (shared, separate[index]):
      check_vocabulary(draft, target, f"for {name}")
    compared = candidates(adaptive, shared.params, separate, index)
    methods = {key: (Counted(c.drafter, "block"), c.params) for key, c in compared.items()}
    methods = {"no draft": (Autoregressive(), None), **methods}
    runs_of = {key: [] for key in methods}
    for turn in range(_ROUNDS.value):
      for key, method in methods.items():
        progress(f"{of_all}: {key}, round {turn + 1} of {_ROUNDS.value}")
        runs_of[key].append(measure(target, prompts, *method, **given))
    rows[name] = runs_of
    tables.append(table_of(name, runs_of, compared))
    Console().print(tables[-1].for_terminal())
    results.write(
      _RESULTS.value,
      "sorted",
      tables=tables,
      rows=rows,
      settings=launch.settings(__name__),
      units=dict(seconds="s"),
      rounds=_ROUNDS.value,
      complete=len(rows) == len(targets),
    )


if __name__ == "__main__":
  launch.main(run)
