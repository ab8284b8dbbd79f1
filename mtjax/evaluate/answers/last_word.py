"""LAMBADA with a causal model: the last word of a passage, written greedily (1606.06031)."""

import dataclasses
import string
from collections.abc import Sequence

from mtjax.evaluate.answers.protocol import TEXT, Question
from mtjax.evaluate.tasks.lambada import read_passages

# ASCII's, and the typographic quotation marks, dashes and dots of the passages.
_PUNCTUATION = string.punctuation + "\u2018\u2019\u201c\u201d\u2013\u2014\u2026"


@dataclasses.dataclass(frozen=True)
class LastWord:
  """The task whose measure is the exact match of the first word that the model writes.

  The prompt is the passage up to its last word, as plain text for chat models too, without the
  space before the word. lm-evaluation-harness (`lambada_openai`) asks instead if the word's tokens
  are those of greedy decoding. That counts a longer word with the same beginning as right; here the
  whole word is compared, without punctuation at its ends.
  """

  formats = (TEXT,)
  max_tokens = 8  # longer words are rare
  measure = "last word"
  convention = (
    "LAMBADA: plain text for every model; the first word that is written greedily must be the last "
    "word of the passage, without punctuation at its ends (lambada_openai of "
    "lm-evaluation-harness compares tokens)."
  )

  def stop(self, prompt_format: str) -> tuple[str, ...]:
    return ()

  def questions(self, path: str, prompt_format: str) -> list[Question]:
    return [
      Question(f"line {number}", (context,), about=dict(word=first_word(word)))
      for number, context, word in read_passages(path)
    ]

  def judge(self, question: Question, answers: Sequence[str]) -> dict[str, str | bool]:
    word = first_word(answers[0])
    # Without a space before it the answer continues the last word of the context.
    begins = answers[0][:1].isspace()
    return dict(right=begins and word == question.about["word"], word=word)


def first_word(text: str) -> str:
  """Returns the first word of a text, without punctuation at its ends; "" if there is none."""
  return next(iter(text.split()), "").strip(_PUNCTUATION)
