"""Compares speculative decoding with plain decoding and transformers on public prompts, batch 1.

python -m experiments.bench.speculative --data=DATA \
  --sets=specbench,pycode,toolcall,gsm8k,humaneval --prompts=16 --tokens=128 --temperatures=0,1 \
  --threads=1 --rounds=5 --output=run.json

python -m experiments.bench.speculative --data=DATA --model=smollm2 --prompt_format=chat \
  --weights=stored --sets=editing,summarising --temperatures=0,0.7 --output=run.json

DATA has a folder for each set (mtjax/evaluate/sets/prompts.py). One process per system, all on the
same exported weights, in interleaved rounds. A system is mtjax:METHOD, any method or drafter there
is, also with other settings, as mtjax:lookup:length=5:branches=2; or one of transformers' or
llama.cpp's; --model leaves out those that need a draft model. In chat format an answer ends where
the model ends it, and the targets are those of a pretrained model. At the end all texts that must
equal plain decoding's are compared with it: the program fails if one does not.
The main tables are of whole calls, the forward pass over the prompt included, which no drafts make
faster. The table "Decoding alone" is of the same calls: the tokens after those of that first pass,
over the time after it.
--output is written after every set: a run that is stopped keeps the sets that were finished. It is
not taken up again, for measurements of different runs are not interleaved with each other.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Sequence

from absl import flags
from rich.console import Console

from mtjax.bench.speculative import PromptSet, Results, SystemResult, compare_sets
from mtjax.bench.systems import LLAMA_CPP, TRANSFORMERS, System
from mtjax.bench.systems.exported import export
from mtjax.bench.targets import LOOKUP, PLAIN
from mtjax.bench.targets.chat import chat_targets, differences
from mtjax.bench.workers import get_system
from mtjax.cli import flags as launch
from mtjax.cli.method_names import config_of
from mtjax.cli.running import progress, results_file
from mtjax.evaluate.sets import prompts as prompt_sets
from mtjax.evaluate.sets.chat import chat_prompt
from mtjax.registry.methods import DRAFT_MODEL, METHODS, decoding
from mtjax.report import results as results_files
from mtjax.report.speed.tables import speed_rows, speed_tables

EVERY = [f"mtjax:{name}" for name in decoding()]
PEERS = {**TRANSFORMERS, **LLAMA_CPP}
_UNITS = dict(
  tokens_per_second="tokens/s",
  seconds="s",
  first_seconds="s",
  decoding_tokens_per_second="tokens/s",
)
REFERENCES = (PLAIN, "transformers eager", *(name for name in PEERS if name.startswith(LOOKUP)))

_DATA = flags.DEFINE_string("data", None, "Folder of the prompt sets.")
_SETS = flags.DEFINE_list(
  "sets",
  [name for name in prompt_sets.SETS if name not in prompt_sets.JOBS],
  "Prompt sets to measure.",
)
_SYSTEMS = flags.DEFINE_list("systems", [*EVERY, *TRANSFORMERS], "Systems to compare.")
_TARGET = flags.DEFINE_string(
  "target", "target", "Target model: a bundled one, a folder or a Hugging Face id."
)
_DRAFT = flags.DEFINE_string(
  "draft", "draft", "Draft model: a bundled one, a folder or a Hugging Face id."
)
_MODEL = flags.DEFINE_string(
  "model", None, "Target model without a draft model, in place of --target and --draft."
)
_FORMAT = flags.DEFINE_enum(
  "prompt_format",
  "text",
  ["text", "chat"],
  "Whether a prompt is a user's message in a chat, whose answer ends at an end token.",
)
_WEIGHTS = flags.DEFINE_string(
  "weights",
  "float32",
  "Weights to export: float32, or stored, which is bfloat16 where it is exact.",
)
_PROMPTS = flags.DEFINE_integer("prompts", 16, "Number of prompts per set.", lower_bound=1)
_WARM = flags.DEFINE_integer(
  "warm", 16, "Number of other prompts per set that stores learn from before.", lower_bound=0
)
_LENGTH = flags.DEFINE_integer(
  "prompt_tokens", 256, "Number of tokens kept at the end of a long prompt.", 1
)
_TOKENS = flags.DEFINE_integer("tokens", 128, "Number of new tokens per prompt.", lower_bound=1)
_TEMPERATURES = flags.DEFINE_list(
  "temperatures", ["0", "1"], "Temperatures to measure at; 0 is greedy."
)
_THREADS = flags.DEFINE_integer(
  "threads", 1, "Number of threads, which are pinned to cores.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of interleaved rounds.", lower_bound=1)
_MARKDOWN = flags.DEFINE_bool(
  "markdown", False, "Print tables as Markdown, as in docs/benchmarks.md."
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "JSON file to write all figures to, prompt by prompt."
)
_RESULTS = flags.DEFINE_string("results", None, "JSON file that docs/benchmarks.md is made from.")


def system(name: str) -> System:
  prefix, _, method = name.partition(":")
  if prefix != "mtjax" or not method:
    return get_system([name], {**dict.fromkeys(EVERY), **PEERS})[name]
  return System("mtjax_method", dict(config=config_of(method)))


def needs_draft(system: System) -> bool:
  config = system.settings.get("config")
  if config is None:
    return system.settings.get("assistant") is not None
  return METHODS[config.get("of", config["method"])].family == DRAFT_MODEL


def tables(results):
  if _FORMAT.value != "chat":
    return speed_tables(results, *REFERENCES[:2])
  return speed_tables(results, *REFERENCES, targets=chat_targets)


def encoder(text):
  """Returns the function from texts to prompts. Raises ValueError for a length beyond the model."""
  length, maximum = _LENGTH.value + _TOKENS.value, text.model.config.max_position
  if length > maximum:
    raise ValueError(
      f"--prompt_tokens and --tokens are {length} together; the model has {maximum} positions"
    )
  if _FORMAT.value == "text":
    return text.tokenizer.encode
  return lambda prompt: chat_prompt(text.tokenizer, prompt, max_tokens=_LENGTH.value)


def record(results, failed) -> dict:
  own = flags.FLAGS.get_flags_for_module(sys.modules[__name__])
  rows = [dataclasses.asdict(result) for result in results]
  return dict(settings={f.name: f.value for f in own}, results=rows, failed=failed)


def publish(results: Sequence[SystemResult], failed: dict[str, str], *, complete: bool) -> None:
  results_files.write(
    _RESULTS.value,
    "speculative",
    tables=tables(results),
    rows=speed_rows(results, PLAIN),
    settings=launch.settings(__name__),
    units=_UNITS,
    rounds=_ROUNDS.value,
    notes=[f"{name} did not run: {why}" for name, why in failed.items()],
    complete=complete,
  )


def run() -> None:
  data = launch.required(_DATA, "folder/of/sets")
  launch.check_output(_OUTPUT, _RESULTS)
  prompt_sets.check_sets(_SETS.value)
  systems = {name: system(name) for name in _SYSTEMS.value}
  absent, models = {}, dict(target=_TARGET.value, draft=_DRAFT.value)
  if _MODEL.value is not None:
    models = dict(target=_MODEL.value)
    absent = {
      name: f"it needs a draft model, and --model={_MODEL.value} has none"
      for name, one in systems.items()
      if needs_draft(one)
    }
    systems = {name: one for name, one in systems.items() if name not in absent}
  counts = _PROMPTS.value, _WARM.value
  texts = {name: prompt_sets.split_prompts(data, name, *counts) for name in _SETS.value}
  console = Console(width=None if sys.stdout.isatty() else 150)
  with tempfile.TemporaryDirectory() as folder, results_file(_OUTPUT.value) as write:
    target = export(folder, models, _WEIGHTS.value)["target"]
    encode, max_tokens = encoder(target), _LENGTH.value
    ends = target.tokenizer.eos_ids if _FORMAT.value == "chat" else ()

    def finished(results, failed):
      write(record(results, absent | failed))
      publish(results, absent | failed, complete=False)

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
      ends=ends,
      progress=progress,
      finished=finished,
    )
  failed = absent | failed
  publish(results, failed, complete=True)
  for table in tables(results):
    print(table.markdown() + "\n") if _MARKDOWN.value else console.print(table.for_terminal())
  for name, why in failed.items():
    console.print(f"{name}: {why}", style="yellow", markup=False)
  temperatures = dict.fromkeys(result.temperature for result in results)
  if unequal := [place for t in temperatures for place in differences(Results(results, t))]:
    sys.exit("\n".join(["texts differ from plain decoding:", *unequal]))


if __name__ == "__main__":
  launch.main(run)
