"""Answers the questions of a task with several methods, batch by batch, and judges the answers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from mtjax.evaluate.answers.methods import AnsweringMethod
from mtjax.evaluate.answers.prompts import prompt_ids
from mtjax.evaluate.answers.protocol import AnswerTask, Question
from mtjax.evaluate.generative import judge_texts
from mtjax.evaluate.tasks.protocol import Record
from mtjax.evaluate.tasks.run import name_number
from mtjax.sampling.logits import seed_key
from mtjax.text import TextModel


@dataclasses.dataclass(frozen=True)
class Answering:
  """The settings of a run over one task, which all its methods share."""

  prompt_format: str
  max_tokens: int  # of each answer
  temperature: float = 0.0
  seed: int = 0
  batch: int = 4  # rows at once

  def __post_init__(self):
    if self.max_tokens < 1 or self.batch < 1:
      raise ValueError(f"max_tokens and batch must be at least 1, got {self}")


def check_lengths(
  model: TextModel,
  questions: Sequence[Question],
  how: Answering,
  path: str,
  methods: Sequence[AnsweringMethod] = (),
) -> int:
  """Returns the largest number of tokens that a question with its answers may have.

  An answer has the tokens that the longest of `methods` writes, or `how.max_tokens`. Raises
  ValueError, with file and name, for a question whose answers exceed the model.
  """
  positions = model.model.config.max_position
  longest = max((each.length(how.max_tokens) for each in methods), default=how.max_tokens)
  largest = 0
  for question in questions:
    turns = len(question.turns)
    size = len(prompt_ids(model.tokenizer, how.prompt_format, question, [""] * (turns - 1)))
    if size + turns * longest > positions:
      raise ValueError(
        f"{path}, {question.name}: a prompt of {size} tokens and {turns} x {longest} tokens "
        f"of answers exceed the {positions} positions of the model: give a smaller --max_tokens"
      )
    largest = max(largest, size + turns * longest)
  return largest


def run(
  model: TextModel,
  task: AnswerTask,
  questions: Sequence[Question],
  methods: Mapping[str, AnsweringMethod],
  how: Answering,
  *,
  known: Sequence[Record] = (),
  each: Callable[[Record], None] = lambda record: None,
  judge: TextModel | None = None,
) -> dict[str, list[Record]]:
  """Returns one record per question, by method, and calls `each` with a new one when it is ready.

  Questions with prompts of similar length share a batch, so that few programs are compiled, and
  every method answers a batch before the next one begins. A batch always has `how.batch` rows: one
  that is not full has rows of one token, which count nowhere. Samples depend on the seed, the
  question's name and its turn, not on the batch, so the records of an earlier run, `known`, are
  those that this one would compute.

  A record has the texts `answers`, their `prompts`, which are the question's turns, their `tokens`
  and `finish`, one per turn, and the number of `forwards` of the target; `steps` has per turn how
  many tokens each of them emitted. `seconds` and `turn_seconds`, one per turn, are those of the
  batch, shared among its questions, without compilation. The task's judge adds its fields, and a
  causal `judge` adds `judged`, one `mtjax.evaluate.generative.JudgedText` per turn, of the answer
  after its question.
  """
  done = {(record["method"], record["name"]): record for record in known}
  lengths = {
    question.name: len(prompt_ids(model.tokenizer, how.prompt_format, question, ()))
    for question in questions
  }
  by_length = sorted(questions, key=lambda question: -lengths[question.name])
  for begin in range(0, len(by_length), how.batch):
    judged: dict[tuple[str, ...], Record] = {}
    for name, method in methods.items():
      batch = by_length[begin : begin + how.batch]
      missing = [question for question in batch if (name, question.name) not in done]
      for question, written in zip(missing, _write(model, task, missing, method, how), strict=True):
        record = dict(name=question.name, method=name, prompts=[*question.turns], **written)
        # The same text has the same outcome: a program that loops is not run once per method.
        key = (question.name, *written["answers"])
        if key not in judged:
          judged[key] = dict(task.judge(question, written["answers"]))
          if judge is not None:
            texts = judge_texts(judge, written["answers"], question.turns)
            judged[key]["judged"] = [dataclasses.asdict(one) for one in texts]
        done[name, question.name] = record | judged[key]
        each(done[name, question.name])
  return {name: [done[name, question.name] for question in questions] for name in methods}


def _write(
  model: TextModel,
  task: AnswerTask,
  questions: Sequence[Question],
  method: AnsweringMethod,
  how: Answering,
) -> list[Record]:
  """Returns what a method writes per question: the fields of `run` without those of the judge."""
  out: list[Record] = [
    dict(answers=[], tokens=[], finish=[], steps=[], forwards=0, turn_seconds=[]) for _ in questions
  ]
  for turn in range(max((len(question.turns) for question in questions), default=0)):
    rows = [row for row, question in enumerate(questions) if turn < len(question.turns)]
    prompts = [
      prompt_ids(model.tokenizer, how.prompt_format, questions[row], out[row]["answers"])
      for row in rows
    ]
    empty = how.batch - len(rows)
    written, seconds = method.write(
      model,
      prompts + [prompts[0][-1:]] * empty,
      stop=task.stop(how.prompt_format),
      max_tokens=[how.max_tokens] * len(rows) + [1] * empty,
      temperature=how.temperature,
      key=_keys(how.seed, turn, [questions[row].name for row in rows] + [""] * empty),
    )
    for place, row in enumerate(rows):
      one = written[place]
      out[row]["answers"].append(one.text)
      out[row]["tokens"].append(one.tokens)
      out[row]["finish"].append(one.finish)
      out[row]["steps"].append(one.steps)
      out[row]["forwards"] += one.forwards
      out[row]["turn_seconds"].append(seconds / len(rows))
  for record in out:
    record["seconds"] = sum(record["turn_seconds"])
  return out


def _keys(seed: int, turn: int, names: Sequence[str]) -> jax.Array:
  key = jax.random.fold_in(seed_key(seed), turn)
  numbers = jnp.array([name_number(name) for name in names])
  return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
