"""Speculative decoding against plain decoding and transformers, on public prompts, batch 1.

python -m experiments.bench.speculative --data=DATA \
  --sets=specbench,pycode,toolcall,gsm8k,humaneval --prompts=16 --tokens=128 --temperatures=0,1 \
  --threads=1 --rounds=5 --output=run.json

DATA has a folder for each set (mtjax/evaluate/sets/prompts.py). One process per system, all on the
same exported weights, in interleaved rounds. A system is mtjax:METHOD, any method or drafter there
is, also with other settings, as mtjax:lookup:length=5:branches=2; or one of transformers'.
"""

import dataclasses
import json
import sys
import tempfile

from absl import flags
from rich.console import Console

from mtjax.bench.speculative import PromptSet, compare_sets
from mtjax.bench.systems import TRANSFORMERS, System
from mtjax.bench.systems.exported import export
from mtjax.bench.targets import PLAIN
from mtjax.bench.workers import get_system
from mtjax.cli import flags as launch
from mtjax.cli.method_names import config_of
from mtjax.evaluate.sets import prompts as prompt_sets
from mtjax.registry.methods import METHODS
from mtjax.report.speed_tables import speed_tables

EVERY = [f"mtjax:{name}" for name, m in METHODS.items() if m.config.startswith("configs/decode/")]

_DATA = flags.DEFINE_string("data", None, "Folder of the prompt sets.")
_SETS = flags.DEFINE_list("sets", list(prompt_sets.SETS), "Which sets.")
_SYSTEMS = flags.DEFINE_list("systems", [*EVERY, *TRANSFORMERS], "Which systems.")
_TARGET = flags.DEFINE_string("target", "target", "Bundled model, folder or hub id.")
_DRAFT = flags.DEFINE_string("draft", "draft", "The draft model, likewise.")
_WEIGHTS = flags.DEFINE_string("weights", "float32", "Or stored: bfloat16 where it is exact.")
_PROMPTS = flags.DEFINE_integer("prompts", 16, "Prompts a set.", lower_bound=1)
_WARM = flags.DEFINE_integer("warm", 16, "Other prompts for stores to learn from.", lower_bound=0)
_LENGTH = flags.DEFINE_integer("prompt_tokens", 256, "What is kept of a long prompt's end.", 1)
_TOKENS = flags.DEFINE_integer("tokens", 128, "New tokens a prompt.", lower_bound=1)
_TEMPERATURES = flags.DEFINE_list("temperatures", ["0", "1"], "0 is greedy.")
_THREADS = flags.DEFINE_integer("threads", 1, "Threads; cores are pinned.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Interleaved rounds.", lower_bound=1)
_MARKDOWN = flags.DEFINE_bool("markdown", False, "Print tables as docs/benchmarks.md has them.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for all figures, prompt by prompt.")


def system(name: str) -> System:
  prefix, _, method = name.partition(":")
  if prefix != "mtjax" or not method:
    return get_system([name], {**dict.fromkeys(EVERY), **TRANSFORMERS})[name]
  return System("mtjax_method", dict(config=config_of(method)))


def write(results, failed) -> None:
  if _OUTPUT.value is not None:
    own = flags.FLAGS.get_flags_for_module(sys.modules[__name__])
    rows = [dataclasses.asdict(result) for result in results]
    with open(_OUTPUT.value, "w", encoding="utf-8") as file:
      json.dump(dict(settings={f.name: f.value for f in own}, results=rows, failed=failed), file)


def run() -> None:
  data = launch.required(_DATA, "folder/of/sets")
  launch.check_output(_OUTPUT)
  prompt_sets.check_sets(_SETS.value)
  systems = {name: system(name) for name in _SYSTEMS.value}
  counts = _PROMPTS.value, _WARM.value
  texts = {name: prompt_sets.split_prompts(data, name, *counts) for name in _SETS.value}
  console = Console(width=None if sys.stdout.isatty() else 150)
  with tempfile.TemporaryDirectory() as folder, console.status("") as status:
    models = export(folder, dict(target=_TARGET.value, draft=_DRAFT.value), _WEIGHTS.value)
    encode, max_tokens = models["target"].tokenizer.encode, _LENGTH.value
    results, failed = compare_sets(
      folder,
      systems,
      [
        PromptSet.of_texts(name, both, encode, max_tokens=max_tokens)
        for name, both in texts.items()
      ],
      tokens=_TOKENS.value,
      temperatures=[float(value) for value in _TEMPERATURES.value],
      threads=_THREADS.value,
      rounds=_ROUNDS.value,
      progress=status.update,
      finished=write,
    )
  for table in speed_tables(results, PLAIN, "transformers eager"):
    print(table.markdown() + "\n") if _MARKDOWN.value else console.print(table.for_terminal())
  for name, why in failed.items():
    console.print(f"{name}: {why}", style="yellow", markup=False)


if __name__ == "__main__":
  launch.main(run)
