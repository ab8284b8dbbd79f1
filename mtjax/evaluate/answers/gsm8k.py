"""GSM8K: sums of primary school in words (2110.14168)."""

import dataclasses
import re
from collections.abc import Sequence

from mtjax.data.sources.text_files import read_records
from mtjax.evaluate.answers.protocol import CHAT, TEXT, Question

# "flexible-extract" of lm-evaluation-harness: the last match is the answer.
_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
# What it removes from both sides before it compares them, in this order.
_IGNORED = (",", r"\$", r"\.$", r"\.0+$")
_GOLD = "#### "


@dataclasses.dataclass(frozen=True)
class Gsm8k:
  """The task whose measure is the exact match of the last number of an answer.

  The prompt is that of `gsm8k_cot_zeroshot` of lm-evaluation-harness: no examples (0 shots), and
  the model is told to think step by step. In the chat format it is the user's message.
  """

  formats = (CHAT, TEXT)
  max_tokens = 256
  measure = "exact match"
  convention = (
    "GSM8K: 0 shots; prompt, stop string and comparison (the last number of the answer, "
    "flexible-extract) of gsm8k_cot_zeroshot of lm-evaluation-harness; a chat model gets the "
    "prompt as a user's message."
  )

  def stop(self, prompt_format: str) -> tuple[str, ...]:
    return ("Q:",)

  def questions(self, path: str, prompt_format: str) -> list[Question]:
    questions = []
    for number, record in read_records(path, ("question", "answer")):
      _, mark, gold = record["answer"].rpartition(_GOLD)
      if not mark:
        raise ValueError(f'{path}, line {number}: the answer has no number after "{_GOLD}"')
      turn = f"Q: {record['question']}\nA: Let's think step by step."
      about = dict(gold=comparable(gold.strip()))
      questions.append(Question(f"line {number}", (turn,), about=about))
    return questions

  def judge(self, question: Question, answers: Sequence[str]) -> dict[str, str | bool | None]:
    number = last_number(answers[0])
    return dict(right=number == question.about["gold"], number=number)


def last_number(text: str) -> str | None:
  """Returns the last number of a text, as `comparable` gives it, or None if there is none."""
  numbers = _NUMBER.findall(text)
  return comparable(numbers[-1]) if numbers else None


def comparable(number: str) -> str:
  """Returns a number without thousands separators, a currency sign, a full stop, or zero cents."""
  for ignored in _IGNORED:
    number = re.sub(ignored, "", number)
  return number
