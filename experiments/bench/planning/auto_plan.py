"""The plan of this machine against settings chosen by hand, and how well its speed was predicted.

python -m experiments.bench.planning.auto_plan --data=DATA --results=results/auto_plan.json

Every model is decoded at every batch size with auto, plain decoding and each --setting, in turn;
figures are medians over the passes. Large batches take more prompts: a single batch is over so soon
that its slowest row and other work decide which setting is ahead. Profiles are measured before, on
other prompts of the same sets, and kept in --folder. Settings that need a draft model are left out
where there is none.
"""

import itertools
import tempfile
from pathlib import Path

from absl import flags
from rich.console import Console

from mtjax.bench.planning.auto import compare_settings
from mtjax.cli import flags as launch
from mtjax.cli.method_names import config_of
from mtjax.cli.running import progress
from mtjax.cli.tuning.here import plan_config
from mtjax.cli.tuning.writing import batches
from mtjax.evaluate.sets import prompts as prompt_sets
from mtjax.evaluate.tasks.run import spread
from mtjax.planning.texts import same_length
from mtjax.pretrained import load
from mtjax.report import results
from mtjax.report.plans.comparison import comparison_notes, comparison_tables

_DATA = flags.DEFINE_string("data", None, "Folder of the prompt sets.")
_SETS = flags.DEFINE_list("sets", ["gsm8k", "humaneval", "pycode", "specbench"], "Prompt sets.")
_MODELS = flags.DEFINE_list(
  "models", ["target+draft", "smollm2"], "Target models; +NAME adds a draft model."
)
_BATCH = flags.DEFINE_list("batch", ["1", "4", "16"], "Numbers of rows.")
_SETTINGS = flags.DEFINE_multi_string(
  "setting",
  [
    "lookup:length=3", "lookup:length=7", "suffix:size=4", "suffix:size=8", "trie:size=8",
    "draft:length=1", "draft:length=3", "draft:length=7", "draft_tree:topology=(2,1,1)",
    "draft_tree:topology=(3,2,1)",
  ],
  "Settings to compare with, as --compare of mtjax-decode has them. Repeatable.",
)  # fmt: skip
_DRAFTERS = flags.DEFINE_list(
  "drafters", ["lookup", "trie", "suffix", "draft", "draft_tree"], "Of auto."
)
_PROMPTS = flags.DEFINE_integer("prompts", 4, "Prompts per set, at least.", 1)
_BATCHES = flags.DEFINE_integer(
  "batches", 4, "Batches of different prompts that a pass decodes, at least.", 1
)
_OTHERS = flags.DEFINE_integer(
  "calibration_prompts", 32, "Prompts per set to measure profiles, none of those above.", 1
)
_LENGTH = flags.DEFINE_integer(
  "prompt_tokens", 128, "Tokens per prompt, some of others before it.", 1
)
_TOKENS = flags.DEFINE_integer("tokens", 96, "New tokens per row.", 2)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Interleaved passes.", 1)
_SECONDS = flags.DEFINE_float("seconds", 60.0, "Time to measure profiles for, at most.", 1.0)
_FOLDER = flags.DEFINE_string("folder", None, "Folder of profiles. Default: a temporary one.")
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")


def prompts_per_set(batch: int) -> int:
  return max(_PROMPTS.value, -(-_BATCHES.value * batch // len(_SETS.value)))


def with_draft(names, draft: str) -> list[str]:
  return [name for name in names if draft or not name.startswith("draft")]


def publish(found, *, complete: bool) -> None:
  results.write(
    _RESULTS.value,
    "auto_plan",
    tables=comparison_tables(found),
    rows=[cell.row() for group in found for cell in group.cells],
    units=dict.fromkeys(("tokens_per_second", "passes", "predicted_tokens_per_second"), "tokens/s"),
    rounds=_REPEATS.value,
    settings=launch.settings(__name__),
    notes=comparison_notes(found),
    complete=complete,
  )


def run() -> None:
  data = launch.required(_DATA, "folder/of/sets")
  launch.check_output(_RESULTS)
  prompt_sets.check_sets(_SETS.value)
  sizes, found = batches(_BATCH.value), []
  counts = {batch: prompts_per_set(batch) for batch in sizes}
  texts = {
    name: prompt_sets.split_prompts(data, name, max(counts.values()), _OTHERS.value)
    for name in _SETS.value
  }
  with tempfile.TemporaryDirectory() as temporary:
    for model, batch in itertools.product(launch.distinct(_MODELS), sizes):
      target, _, draft = model.partition("+")
      text = load(target)
      context = _LENGTH.value + _TOKENS.value
      config = plan_config(with_draft(_DRAFTERS.value, draft), draft, context, _SECONDS.value)
      # The prompts and outputs of the profiles have these lengths too: it is one program.
      config["plan"] |= dict(
        folder=str(Path(_FOLDER.value or temporary)),
        texts={k: others for k, (_, others) in texts.items()},
      )
      named = {name: config_of(name) for name in with_draft(_SETTINGS.value, draft)}
      for own in named.values():
        own |= dict(draft_model=draft) if own["draft_model"] else {}
      decoded = {name: spread(own, counts[batch]) for name, (own, _) in texts.items()}
      encoded = same_length(text, decoded, _LENGTH.value)
      found.append(
        compare_settings(
          text, config, named, batch=batch, texts=encoded, max_tokens=_TOKENS.value,
          repeats=_REPEATS.value, progress=lambda what, model=model: progress(f"{model}, {what}"),
        )
      )  # fmt: skip
      publish(found, complete=False)
  for table in comparison_tables(found):
    Console(width=150).print(table.for_terminal())
  publish(found, complete=True)


if __name__ == "__main__":
  launch.main(run)
