"""One sorted draft for several targets (2407.01955): python -m experiments.bench.sorted

Against the same network left after a fixed number of layers, and a draft of its own for every
target. A model is a bundled one, a folder or a hub id; NAME:int8 decodes it with int8 weights,
which is another target. Batch 1; medians over interleaved rounds; memory is that of the drafts'
weights for all targets together, as they are decoded.

python -m experiments.bench.sorted --targets=target,target:int8 --sorted=models/sorted \
  --separate=draft,draft:int8 --data=DATA --sets=specbench,gsm8k --temperature=1
"""

import dataclasses

import jax
from absl import flags
from rich.console import Console

from mtjax.bench.shared_draft import Counted, candidates, figures, measure
from mtjax.cli import flags as launch
from mtjax.cli.running import progress
from mtjax.decode.method import Autoregressive
from mtjax.draft import S2D
from mtjax.evaluate.sets import prompts as prompt_sets
from mtjax.pretrained import DEMO_PROMPTS, load_pretrained, weights_for_decoding
from mtjax.registry.drafters import check_vocabulary
from mtjax.report import results
from mtjax.report.speed_tables import Cells
from mtjax.sampling.logits import Sampling

_TARGETS = flags.DEFINE_list("targets", ["target", "target:int8"], "Models that decode.")
_SORTED = flags.DEFINE_string("sorted", "sorted", "The draft that all of them share.")
_EXITS = flags.DEFINE_list("exits", [], "Layers it may be left after; none: those of its training.")
_THRESHOLDS = flags.DEFINE_list("thresholds", [], "How sure it must be there; none: 0.5, and 0.")
_SEPARATE = flags.DEFINE_list("separate", ["draft", "draft:int8"], "A draft for each target.")
_DATA = flags.DEFINE_string("data", None, "Folder of prompt sets; none: the demo's prompts.")
_SETS = flags.DEFINE_list("sets", ["specbench", "gsm8k", "humaneval"], "Which of them.")
_PROMPTS = flags.DEFINE_integer("prompts", 4, "Prompts a set.", lower_bound=1)
_TOKENS = flags.DEFINE_integer("tokens", 64, "New tokens a prompt.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 4, "Drafts a round.", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0 is greedy.", lower_bound=0)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Interleaved rounds.", lower_bound=1)
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")
_KEPT = 64  # tokens of a prompt


def load(name):
  name, _, weights = name.partition(":")
  text = load_pretrained(name)
  return dataclasses.replace(text, params=weights_for_decoding(text.params, weights or "stored"))


def read_prompts() -> list[str]:
  if _DATA.value is None:
    return list(DEMO_PROMPTS)
  sets = [prompt_sets.prompts(_DATA.value, name, _PROMPTS.value) for name in _SETS.value]
  return [prompt for texts in sets for prompt in texts]


def table_of(name: str, found: dict, compared: dict) -> Cells:
  rows = []
  for key, runs in found.items():
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
  # The ends of long prompts: every length that is another bucket compiles anew.
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
    found = {key: [] for key in methods}
    for turn in range(_ROUNDS.value):
      for key, method in methods.items():
        progress(f"{of_all}: {key}, round {turn + 1} of {_ROUNDS.value}")
        found[key].append(measure(target, prompts, *method, **given))
    rows[name] = found
    tables.append(table_of(name, found, compared))
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
