r"""The part of mtjax/cli/evaluate.py that fills blanks.

mtjax-evaluate --task=humaneval_infilling --data=SingleLineInfilling.jsonl.gz
mtjax-evaluate --task=sudoku --data=sudoku4x4_dev.csv --orders=lattice,random
mtjax-evaluate --task=wikitext_masked --data=wiki.valid.tokens --judge=target
mtjax-evaluate --task=countdown --data=dev.jsonl --sample=9999 --output=a.jsonl

Tasks and their files: mtjax/evaluate/tasks. The likelihood of the reference depends on the
order alone, not on how blanks are filled. humaneval_infilling runs the programs that the model
wrote: mtjax/evaluate/tasks/sandbox.py says what holds them back and what does not. --records
keeps every answer as it comes; the same command then goes on where it was stopped.
--sample writes that many puzzles, none of them in --data, in place of an evaluation; a model is
trained on them by configs/train/bundled_anysubset.py with --config.data.sources=FILES, as in it.
"""

import json
import sys
from typing import TYPE_CHECKING

from absl import flags
from rich.console import Console

from mtjax.cli import flags as launch

if TYPE_CHECKING:
  from mtjax.text import TextModel

VALUES = flags.FlagValues()

TASK = flags.DEFINE_string("task", None, "Infilling task, in place of --text.", flag_values=VALUES)
DATA = flags.DEFINE_string("data", None, "The task's file.", flag_values=VALUES)
_LIMIT = flags.DEFINE_integer(
  "limit", None, "Examples, evenly over the file.", lower_bound=1, flag_values=VALUES
)
ORDERS = flags.DEFINE_list(
  "orders",
  "lattice",
  "lattice, right_to_left, random, left_to_right, max_probability, entropy, margin.",
  flag_values=VALUES,
)
_METHOD = flags.DEFINE_string(
  "method", "self", "sequential, self, fused, once, ngram, confidence.", flag_values=VALUES
)
_WINDOW = flags.DEFINE_integer(
  "window", 4, "Tokens drafted at once.", lower_bound=1, flag_values=VALUES
)
_TEMPERATURE = flags.DEFINE_float(
  "temperature", None, "0: greedy; default: the task's.", 0.0, flag_values=VALUES
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.", flag_values=VALUES)
_JUDGE = flags.DEFINE_string(
  "judge", "target", "Causal model of generative perplexity.", flag_values=VALUES
)
RECORDS = flags.DEFINE_string(
  "records", None, "JSON lines of all answers; continued if there.", flag_values=VALUES
)
SAMPLE = flags.DEFINE_integer(
  "sample", None, "Puzzles to write to --output.", lower_bound=1, flag_values=VALUES
)

FLAGS = (DATA, _LIMIT, _METHOD, _WINDOW, _TEMPERATURE, _SEED, _JUDGE, RECORDS, SAMPLE)

_LENGTH = 255  # the bundled model was trained on rows of 256, with its sink


def run(model_name: str | None, weights: str, length: int | None, output: str | None) -> None:
  name = launch.required(TASK, "sudoku")
  path = launch.required(DATA, "SingleLineInfilling.jsonl.gz")
  orders = launch.distinct(ORDERS)
  from mtjax.anysubset.filling.names import get_fill_method
  from mtjax.evaluate.tasks import records as records_lib
  from mtjax.evaluate.tasks import run as run_lib
  from mtjax.evaluate.tasks.registry import check_data, get_task, training_texts
  from mtjax.pretrained import load_pretrained, weights_for_decoding
  from mtjax.report.infilling_tables import infilling_table
  from mtjax.text import TextModel

  if SAMPLE.value is not None:
    launch.check_unused(
      "with --sample", ORDERS, _LIMIT, _METHOD, _WINDOW, _TEMPERATURE, _JUDGE, RECORDS
    )
    if output is None:
      raise ValueError("--sample needs --output=FILE.jsonl for its texts")
    texts = training_texts(name, path, SAMPLE.value, seed=_SEED.value)
    with open(output, "w", encoding="utf-8") as file:
      file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return
  if name != "wikitext_masked":
    launch.check_unused(f"with --task={name}", _JUDGE)
  if _METHOD.value == "sequential":
    launch.check_unused("with --method=sequential", _WINDOW)
  check_data(name, path)
  task = get_task(name, judge=_JUDGE.value)
  temperature = task.temperature if _TEMPERATURE.value is None else _TEMPERATURE.value
  method = get_fill_method(_METHOD.value, _WINDOW.value)
  fillers = [run_lib.Filler(o, method, temperature, _SEED.value) for o in orders]
  loaded = load_pretrained(model_name or "anysubset")
  run_lib.check_model(loaded, name)
  params = weights_for_decoding(loaded.params, weights)
  model = TextModel(loaded.model, params, loaded.tokenizer)
  max_tokens = row_length(model, length)
  examples = run_lib.spread(
    task.examples(path, model.tokenizer, max_tokens=max_tokens), _LIMIT.value
  )
  if not examples:
    raise ValueError(f"{path} holds no example of {name} that fits {max_tokens} tokens")
  settings = dict(
    task=name, **records_lib.data_identity(path), model=model_name or "anysubset",
    params_crc32=records_lib.params_identity(loaded.params), weights=weights, length=max_tokens,
    method=repr(method), temperature=temperature, seed=_SEED.value, judge=_JUDGE.value,
  )  # fmt: skip
  known = records_lib.resumed(RECORDS.value, settings) if RECORDS.value else []
  records, summaries = {}, {}
  with Console(stderr=True).status("") as status:
    for filler in fillers:
      done = iter(range(1, len(examples) + 1))

      def each(record, filler=filler, done=done):
        status.update(f"{filler.order}: {next(done)} of {len(examples)}, {record['name']}")
        if RECORDS.value:
          records_lib.append(RECORDS.value, record)

      status.update(f"{filler.order}: compiling")
      found = run_lib.run(model, task, examples, filler, known=known, each=each)
      records[filler.order], summaries[filler.order] = found, run_lib.summary(task, found)
  Console(file=sys.stdout, width=110).print(infilling_table(name, summaries))
  if output is not None:
    with open(output, "w", encoding="utf-8") as file:
      json.dump(
        dict(settings=dict(settings, data=path), summaries=summaries, records=records),
        file,
        indent=2,
      )


def row_length(model: "TextModel", length: int | None) -> int:
  """Tokens of a row: --length, or else as many as the bundled model's where there is room.

  ValueError for a --length that the model has no positions for.
  """
  from mtjax.evaluate.tasks.run import free_positions

  max_tokens = free_positions(model)
  if length is not None and length > max_tokens:
    raise ValueError(f"--length={length} is too much: the model has room for {max_tokens} tokens")
  return length or min(_LENGTH, max_tokens)
