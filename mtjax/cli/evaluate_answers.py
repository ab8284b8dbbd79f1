r"""The part of mtjax/cli/evaluate.py that scores what a model writes, with several methods.

mtjax-evaluate --model=smollm2 --task=gsm8k --data=test.jsonl --methods=ar,lookup --limit=20
mtjax-evaluate --model=smollm2 --task=humaneval:limit=40,mtbench:max_tokens=128 \
  --data=HumanEval.jsonl.gz,question.jsonl

Tasks are humaneval and mbpp (pass@1), gsm8k (exact match), lambada_greedy (last word), mtbench
(texts alone) and specbench (speed); mtjax/evaluate/answers says which prompts and rules they use.
limit and max_tokens after a task's name hold for this task alone. Several tasks need as many files
in --data. --spec_bench=FOLDER writes the answers of specbench as Spec-Bench's own programs read
them, one file per method.

Methods of denoising, such as --methods=llada:steps=16,fast_dllm, answer with the model that they
denoise with: a masked one, one of uniform noise, or, for `set`, an any-subset one. The canvas has
--max_tokens tokens, or those of the method: llada:length=128. With --judge=target the table also
has the perplexity of the answers under that model, and their entropy beside it.

Every method answers the same questions, and the table shows the share of answers that are the text
of `ar`, token by token. Lossless methods must write that text where decoding is greedy, and with
the verifier sample_match at any temperature: otherwise the command names the first difference and
ends with exit code 1, after it has written all results. Two tokens whose logits are equal within
float32 are a tie, which is reported and is no error. --records keeps each answer, and the same
command then continues where it was stopped. humaneval runs the programs that the model wrote:
mtjax/evaluate/tasks/sandbox.py says what restricts them and what does not.
"""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from rich.console import Console

from mtjax.cli import flags as launch
from mtjax.cli.evaluate_infilling import DATA, JUDGE, LIMIT, RECORDS, SEED, TASK, TEMPERATURE
from mtjax.cli.likelihood import generative
from mtjax.cli.running import progress, results_file, seldom

if TYPE_CHECKING:
  from mtjax.evaluate.answers.methods import AnsweringMethod
  from mtjax.evaluate.answers.protocol import AnswerTask, Question
  from mtjax.evaluate.answers.run import Answering
  from mtjax.text import TextModel

VALUES = flags.FlagValues()

METHODS = flags.DEFINE_list(
  "methods",
  "ar,lookup,suffix",
  "Methods to answer with, each NAME or NAME:field=value; ar must be one of them, unless they "
  "denoise canvases. With a task that fills blanks: methods of denoising, in place of --method.",
  flag_values=VALUES,
)
_MAX_TOKENS = flags.DEFINE_integer(
  "max_tokens",
  None,
  "Largest number of tokens of an answer. Default: the task's own.",
  lower_bound=1,
  flag_values=VALUES,
)
_PROMPT_FORMAT = flags.DEFINE_enum(
  "prompt_format",
  None,
  ["chat", "text"],
  "chat: in the model's chat template; text: as plain text. Default: chat for gsm8k, mtbench and "
  "specbench if the model has a template.",
  flag_values=VALUES,
)
_SPEC_BENCH = flags.DEFINE_string(
  "spec_bench",
  None,
  "With --task=specbench --batch=1: folder for one file of answers per method, as Spec-Bench's "
  "evaluation/speed.py reads them.",
  flag_values=VALUES,
)
FLAGS = (METHODS, _MAX_TOKENS, _PROMPT_FORMAT, _SPEC_BENCH)
_TIMED = "specbench"  # the task whose answers --spec_bench writes


@dataclasses.dataclass(frozen=True)
class _Part:
  """One task of the command: its questions, and how they are answered."""

  name: str
  path: str
  task: "AnswerTask"
  questions: "list[Question]"
  total: int  # questions of the file
  how: "Answering"
  tokens: int  # of the longest question with its answers

  @property
  def title(self) -> str:
    rule = f"temperature {self.how.temperature:g}" if self.how.temperature else "greedy"
    return (
      f"{self.name}, {len(self.questions)} of {self.total} questions, {self.how.prompt_format} "
      f"format, at most {self.how.max_tokens} tokens, {rule}"
    )


def is_wanted() -> bool:
  """Returns whether --task names tasks that are answered in writing.

  Raises ValueError, with all names, for a task that there is not.
  """
  if TASK.value is None:
    return False
  from mtjax.evaluate.answers.registry import TASKS

  names = [part.partition(":")[0] for part in TASK.value.split(",")]
  if any(name in TASKS for name in names):
    return True
  from mtjax.evaluate.tasks.registry import NAMES

  for name in names:
    if name not in NAMES:
      known = (*NAMES, *TASKS, generative.TASK)
      raise ValueError(f"task {name!r} is not one of {', '.join(known)}")
  return False


def run(
  model_name: str | None,
  weights: str,
  batch: int,
  output: str | None,
  results_path: str | None,
  mesh: str = "",
) -> int:
  from mtjax.cli.method_names import config_of
  from mtjax.evaluate.answers.denoising import DenoisingMethod, denoise_only
  from mtjax.evaluate.answers.methods import REFERENCE, answering
  from mtjax.evaluate.answers.run import run as answer
  from mtjax.evaluate.answers.same_text import compared
  from mtjax.evaluate.answers.summary import summary
  from mtjax.evaluate.generative import load_judge
  from mtjax.evaluate.tasks import records as records_lib
  from mtjax.models import check_causal
  from mtjax.pretrained import for_decoding, load_pretrained
  from mtjax.registry.auto import check_plan
  from mtjax.registry.denoising.spelled import model_of, spelled_denoiser
  from mtjax.report.answers.report import QualityReport
  from mtjax.verify import get_verifier

  names = launch.distinct(METHODS)
  denoises = denoise_only(names)
  spelled = [
    spelled_denoiser(name, length=_MAX_TOKENS.value, temperature=TEMPERATURE.value)
    for name in names
    if denoises
  ]
  model_name = model_name or (model_of(spelled) if denoises else "target")
  wanted = _wanted()
  _check_spec_bench([name for name, *_ in wanted], batch)
  temperature = TEMPERATURE.value or 0.0
  methods: dict[str, AnsweringMethod] = {}
  if denoises:
    reference = names[0]
    methods |= {one.name: DenoisingMethod.of(one) for one in spelled}
  else:
    reference = REFERENCE
    configs = {name: config_of(name) | dict(weights=weights) for name in names}
    for config in configs.values():  # mistakes are said before a model is loaded
      check_plan(config)
      if "verifier" in config:
        get_verifier(config["verifier"])
  loaded = load_pretrained(model_name, mesh=mesh)
  identity = records_lib.params_identity(loaded.params)
  model = for_decoding(loaded, weights)
  if denoises:
    for one in spelled:
      one.denoiser.check(model)
  else:
    check_causal(model.model, "the model that answers")
  parts = _parts(wanted, model, temperature, batch, list(methods.values()))
  if not denoises:
    tokens = max(part.tokens for part in parts)
    methods |= answering(configs, model, temperature=temperature, batch=batch, tokens=tokens)
  judge = load_judge(JUDGE.value) if JUDGE.present else None
  settings = dict(
    model=model_name, params_crc32=identity, weights=weights, temperature=temperature,
    seed=SEED.value, batch=batch, tasks=[_settings(part) for part in parts],
    **(dict(judge=JUDGE.value) if judge is not None else {}),
  )  # fmt: skip
  known = records_lib.resumed(RECORDS.value, settings) if RECORDS.value else []
  exactness = {name: method.exactness.value for name, method in methods.items()}
  answers: dict[str, Any] = {}
  report = QualityReport(dict(settings, methods=names), exactness, reference)
  with results_file(output) as write:
    for number, part in enumerate(parts, 1):
      total, step = len(part.questions) * len(methods), seldom(progress)
      count = iter(range(1, total + 1))

      def each(record, part=part, step=step, count=count, total=total):
        step(f"{part.name}: answer {next(count)} of at most {total}, {record['method']}")
        if RECORDS.value:
          records_lib.append(RECORDS.value, dict(task=part.name, **record))

      progress(f"compiling and answering {part.name}, {number} of {len(parts)}")
      done = [record for record in known if record["task"] == part.name]
      records = answer(
        model, part.task, part.questions, methods, part.how, known=done, each=each, judge=judge
      )
      references = records[reference]
      figures = {name: summary(part.task, own, references) for name, own in records.items()}
      ties, errors = [], []
      if not denoises:
        ties, errors = compared(model, part.questions, records, methods, part.how)
      report.add(part.name, part.title, part.task, figures, ties=ties, errors=errors)
      answers[part.name] = records
      write(dict(report.record(), records=answers))
      if part.name == _TIMED:
        _write_spec_bench(model_name, part, records)
      report.write(results_path, complete=number == len(parts))
  Console(file=sys.stdout, width=132).print(*(table.for_terminal() for table in report.tables))
  for note in (*report.ties, *report.errors):
    print(f"mtjax: {note}", file=sys.stderr)
  return 1 if report.errors else 0


def _check_spec_bench(names: Sequence[str], batch: int) -> None:
  if _SPEC_BENCH.value is None:
    return
  if _TIMED not in names:
    raise ValueError(f"--spec_bench writes the answers of {_TIMED}: give --task={_TIMED}")
  if batch != 1:
    raise ValueError(
      f"--spec_bench with --batch={batch}: Spec-Bench times one question at a time, give --batch=1"
    )
  if Path(_SPEC_BENCH.value).exists() and not Path(_SPEC_BENCH.value).is_dir():
    raise NotADirectoryError(f"--spec_bench={_SPEC_BENCH.value} is a file: name a folder")


def _write_spec_bench(model_name: str, part: _Part, records: Mapping[str, Sequence[Any]]) -> None:
  if _SPEC_BENCH.value is None:
    return
  from mtjax.evaluate.answers.specbench_file import write_answers

  paths = write_answers(
    _SPEC_BENCH.value,
    part.questions,
    records,
    model=model_name,
    temperature=part.how.temperature,
    timestamp=time.time(),
  )
  print("mtjax: wrote", *paths, file=sys.stderr)


def _wanted() -> list[tuple[str, str, dict[str, int]]]:
  """Returns (name, file, own settings) of each task of the command."""
  from mtjax.evaluate.answers.registry import TASKS

  path = launch.required(DATA, "HumanEval.jsonl.gz")
  specs = TASK.value.split(",")
  paths = path.split(",") if len(specs) > 1 else [path]
  if len(paths) != len(specs):
    raise ValueError(
      f"--task names {len(specs)} tasks and --data {len(paths)} files: give one file per task, in "
      "the same order, with commas between them"
    )
  out = []
  for spec, file in zip(specs, paths, strict=True):
    name, *fields = spec.split(":")
    if name not in TASKS:
      raise ValueError(
        f"task {name!r} cannot be run beside others: those that can are {', '.join(TASKS)}"
      )
    if name in [other for other, *_ in out]:
      raise ValueError(f"--task names {name} twice")
    # Read here too: a mistake in a file is answered before the model is loaded.
    if not TASKS[name].questions(file, TASKS[name].formats[0]):
      raise ValueError(f"{file} holds no question of {name}")
    out.append((name, file, dict(_field(spec, field) for field in fields)))
  return out


def _field(spec: str, text: str) -> tuple[str, int]:
  name, _, value = text.partition("=")
  if name not in ("limit", "max_tokens") or not value.isdecimal() or not int(value):
    raise ValueError(f"--task={spec}: {text!r} must be limit=N or max_tokens=N, with N at least 1")
  return name, int(value)


def _parts(
  wanted: Sequence[tuple[str, str, Mapping[str, int]]],
  model: "TextModel",
  temperature: float,
  batch: int,
  methods: "Sequence[AnsweringMethod]",
) -> list[_Part]:
  from mtjax.evaluate.answers.prompts import format_for
  from mtjax.evaluate.answers.registry import TASKS
  from mtjax.evaluate.answers.run import Answering, check_lengths
  from mtjax.evaluate.tasks.run import spread

  parts = []
  for name, path, own in wanted:
    task = TASKS[name]
    prompt_format = format_for(model.tokenizer, task, name, _PROMPT_FORMAT.value)
    questions = task.questions(path, prompt_format)
    chosen = spread(questions, own.get("limit", LIMIT.value))
    max_tokens = own.get("max_tokens", _MAX_TOKENS.value or task.max_tokens)
    how = Answering(prompt_format, max_tokens, temperature, SEED.value, batch)
    tokens = check_lengths(model, chosen, how, path, methods)
    parts.append(_Part(name, path, task, chosen, len(questions), how, tokens))
  return parts


def _settings(part: _Part) -> dict[str, Any]:
  from mtjax.evaluate.tasks.records import data_identity

  fields = dict(task=part.name, prompt_format=part.how.prompt_format)
  return fields | dict(max_tokens=part.how.max_tokens, **data_identity(part.path))
