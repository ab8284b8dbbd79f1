"""Questions in the form of MT-bench, of one or more turns (2306.05685)."""

import dataclasses
from collections.abc import Sequence

from mtjax.data.sources.text_files import read_records
from mtjax.evaluate.answers.protocol import CHAT, TEXT, Question
from mtjax.evaluate.tasks.protocol import Record


@dataclasses.dataclass(frozen=True)
class MtBench:
  """The task whose answers are only shown: scores of MT-bench are those of a model as a judge.

  The second turn follows the model's own answer to the first one. In plain text the turns have the
  form of FastChat's `zero_shot` conversations, without its first sentence.
  """

  formats = (CHAT, TEXT)
  max_tokens = 512
  measure = None
  convention = "MT-bench: the turns of FastChat; texts only, because its score needs a judge."

  def stop(self, prompt_format: str) -> tuple[str, ...]:
    return turn_stop(prompt_format)

  def questions(self, path: str, prompt_format: str) -> list[Question]:
    questions = []
    for number, record in read_records(path, ("category",)):
      turns = turns_of(record, f"{path}, line {number}", prompt_format)
      questions.append(Question(f"{record['category']}, line {number}", turns))
    return questions

  def judge(self, question: Question, answers: Sequence[str]) -> dict[str, bool]:
    return {}


def turns_of(record: Record, where: str, prompt_format: str) -> tuple[str, ...]:
  """Returns the turns of a record in a prompt's format. Raises ValueError for other "turns"."""
  turns = record.get("turns")
  if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
    raise ValueError(f'{where}: "turns" must be a list of texts, got {turns!r}')
  if prompt_format == CHAT:
    return tuple(turns)
  first, *others = (f"\n### Human: {turn}\n### Assistant:" for turn in turns)
  return first.removeprefix("\n"), *others


def turn_stop(prompt_format: str) -> tuple[str, ...]:
  """Returns the strings that end an answer of such a conversation."""
  return () if prompt_format == CHAT else ("\n### Human:",)
