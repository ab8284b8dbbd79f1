r"""The part of mtjax/cli/evaluate.py that measures how well a model fills blanks.

mtjax-evaluate --task=humaneval_infilling --data=SingleLineInfilling.jsonl.gz
mtjax-evaluate --task=sudoku --data=sudoku4x4_dev.csv --orders=lattice,random
mtjax-evaluate --task=wikitext_masked --data=wiki.valid.tokens --judge=target
mtjax-evaluate --task=countdown --data=dev.jsonl --sample=9999 --output=a.jsonl

mtjax-evaluate --task=humaneval_infilling --data=SingleLineInfilling.jsonl.gz \
  --methods=llada,fast_dllm:transfer=threshold:threshold=0.7

Tasks and their files are in mtjax/evaluate/tasks. The likelihood of the reference depends on the
order alone, not on the method that fills the blanks. With --methods, methods of denoising fill the
blanks, in an order of their own, with the model that they denoise with; --temperature is that of
methods whose name says none. humaneval_infilling runs the programs that the
model wrote: mtjax/evaluate/tasks/sandbox.py says what restricts them and what does not. --records
saves every answer when it is complete; the same command then continues where it was stopped.
--sample writes puzzles, none of them in --data, instead of an evaluation; configs/train/sudoku.py
shows how a model is trained on such files.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags
from rich.console import Console

from mtjax.cli import flags as launch
from mtjax.cli.running import progress, results_file, seldom

if TYPE_CHECKING:
  from mtjax.text import TextModel

VALUES = flags.FlagValues()

TASK = flags.DEFINE_string(
  "task",
  None,
  "Task to evaluate, instead of --text: one that fills blanks, such as sudoku or "
  "humaneval_infilling, one or several that a model answers in writing, such as gsm8k, or "
  "generative_perplexity, for texts that are there already.",
  flag_values=VALUES,
)
DATA = flags.DEFINE_string(
  "data",
  None,
  "The task's data file; one per task where there are several, and one or several of "
  "generative_perplexity.",
  flag_values=VALUES,
)
LIMIT = flags.DEFINE_integer(
  "limit",
  None,
  "Number of examples to evaluate, spread evenly over the file. Default: all.",
  lower_bound=1,
  flag_values=VALUES,
)
ORDERS = flags.DEFINE_list(
  "orders",
  "lattice",
  "Orders to fill or score in: lattice, right_to_left, random, staggered, left_to_right, "
  "max_probability, entropy, margin.",
  flag_values=VALUES,
)
_METHOD = flags.DEFINE_string(
  "method", "self", "Method of filling, as in mtjax-infill.", flag_values=VALUES
)
_WINDOW = flags.DEFINE_integer(
  "window",
  4,
  "Number of tokens to draft or to decide per round.",
  lower_bound=1,
  flag_values=VALUES,
)
TEMPERATURE = flags.DEFINE_float(
  "temperature",
  None,
  "Temperature to sample with; 0 is greedy. Default: the task's own.",
  0.0,
  flag_values=VALUES,
)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the random numbers.", flag_values=VALUES)
JUDGE = flags.DEFINE_string(
  "judge",
  "target",
  "Causal model that measures the generative perplexity of texts: of wikitext_masked, of "
  "generative_perplexity (several with commas), and, where it is given, of written answers.",
  flag_values=VALUES,
)
RECORDS = flags.DEFINE_string(
  "records",
  None,
  "JSON lines file of all answers; an existing one is continued.",
  flag_values=VALUES,
)
SAMPLE = flags.DEFINE_integer(
  "sample",
  None,
  "Number of puzzles to write to --output as training texts, instead of an evaluation.",
  lower_bound=1,
  flag_values=VALUES,
)

FLAGS = (DATA, LIMIT, _METHOD, _WINDOW, TEMPERATURE, SEED, JUDGE, RECORDS, SAMPLE)
FILLING = (ORDERS, _METHOD, _WINDOW, SAMPLE)  # of tasks that fill blanks alone

_LENGTH = 255  # the bundled model was trained on rows of 256, with its sink


def run(
  model_name: str | None,
  weights: str,
  length: int | None,
  output: str | None,
  results_path: str | None,
  methods: Sequence[str] = (),
  *,
  mesh: str = "",
) -> None:
  """Evaluates --task, with `methods` of denoising or, if there are none, with --method."""
  name = launch.required(TASK, "sudoku")
  path = launch.required(DATA, "SingleLineInfilling.jsonl.gz")
  orders = launch.distinct(ORDERS)
  from mtjax.cli.method_names import fill_method_of
  from mtjax.evaluate.tasks import records as records_lib
  from mtjax.evaluate.tasks import run as run_lib
  from mtjax.evaluate.tasks.denoising import DenoisingFiller
  from mtjax.evaluate.tasks.registry import check_data, get_task, training_texts
  from mtjax.pretrained import for_decoding, load_pretrained
  from mtjax.registry.denoising.spelled import model_of, spelled_denoiser
  from mtjax.report import results
  from mtjax.report.infilling_tables import infilling_table

  if methods:
    launch.check_unused("with --methods", ORDERS, _METHOD, _WINDOW, SAMPLE)
  if SAMPLE.value is not None:
    launch.check_unused(
      "with --sample", ORDERS, LIMIT, _METHOD, _WINDOW, TEMPERATURE, JUDGE, RECORDS
    )
    if output is None:
      raise ValueError("--sample needs --output=FILE.jsonl to write its texts to")
    texts = training_texts(name, path, SAMPLE.value, seed=SEED.value)
    with open(output, "w", encoding="utf-8") as file:
      file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return
  if name != "wikitext_masked":
    launch.check_unused(f"with --task={name}", JUDGE)
  fillers: list[run_lib.ExampleFiller] = []
  if methods:
    spelled = [spelled_denoiser(one, temperature=TEMPERATURE.value) for one in methods]
    fillers += [DenoisingFiller.of(one, SEED.value) for one in spelled]
    model_name, of = model_name or model_of(spelled), "method"
  else:
    method = fill_method_of(_METHOD, _WINDOW)
    model_name, of = model_name or "anysubset", "order"
  check_data(name, path)
  task = get_task(name, judge=JUDGE.value)
  how: dict[str, Any] = dict(temperature=TEMPERATURE.value)
  if not methods:
    temperature = task.temperature if TEMPERATURE.value is None else TEMPERATURE.value
    fillers += [run_lib.Filler(o, method, temperature, SEED.value) for o in orders]
    how = dict(method=repr(method), temperature=temperature)
  loaded = load_pretrained(model_name, mesh=mesh)
  for filler in fillers:
    filler.check(loaded, name)
  model = for_decoding(loaded, weights)
  max_tokens = row_length(model, length)
  examples = run_lib.spread(
    task.examples(path, model.tokenizer, max_tokens=max_tokens), LIMIT.value
  )
  if not examples:
    raise ValueError(f"{path} has no example of {name} that fits in {max_tokens} tokens")
  settings = dict(
    task=name, **records_lib.data_identity(path), model=model_name,
    params_crc32=records_lib.params_identity(loaded.params), weights=weights, length=max_tokens,
    **how, seed=SEED.value, judge=JUDGE.value,
  )  # fmt: skip
  known = records_lib.resumed(RECORDS.value, settings) if RECORDS.value else []
  records, summaries = {}, {}
  with results_file(output) as write:
    for number, filler in enumerate(fillers, 1):
      done, step = iter(range(1, len(examples) + 1)), seldom(progress)

      def each(record, filler=filler, done=done, step=step):
        step(f"{filler.label}: {next(done)} of {len(examples)}, {record['name']}")
        if RECORDS.value:
          records_lib.append(RECORDS.value, record)

      progress(f"compiling and filling, {of} {filler.label}, {number} of {len(fillers)}")
      answers = run_lib.run(model, task, examples, filler, known=known, each=each)
      records[filler.label], summaries[filler.label] = answers, run_lib.summary(task, answers)
      write(dict(settings=dict(settings, data=path), summaries=summaries, records=records))
  table = infilling_table(name, summaries, of=of)
  Console(file=sys.stdout, width=110).print(table.for_terminal())
  results.write(
    results_path,
    "task",
    tables=[table],
    rows=summaries,
    units=dict(nats="nats per target token", entropy="bits"),
    settings=dict(settings, data=path),
  )


def row_length(model: "TextModel", length: int | None) -> int:
  """Returns the number of tokens per row: --length, or else 255 or as many as the model can hold.

  Raises ValueError for a --length that the model has no positions for.
  """
  from mtjax.evaluate.tasks.run import free_positions

  max_tokens = free_positions(model)
  if length is not None and length > max_tokens:
    raise ValueError(f"--length={length} is too much: the model has room for {max_tokens} tokens")
  return length or min(_LENGTH, max_tokens)
