"""LAMBADA: the last word of a passage (1606.06031)."""

import dataclasses
import re
from collections.abc import Sequence

from mtjax.data.sources.text_files import read_records
from mtjax.data.tokenizers import Tokenizer
from mtjax.evaluate.tasks.examples import Example, cut, from_pieces
from mtjax.evaluate.tasks.protocol import Answer, Record

_LAST_WORD = re.compile(r"(.*\S)(\s+\S+)\s*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Lambada:
  """The task whose blank is the word after the last space, and its measure the exact match.

  The blank has as many tokens as the word. For an any-subset model the last word is a blank like
  any other: nothing stands after it, so the lattice's order is that of a causal model.
  """

  temperature = 0.0

  def examples(self, path: str, tokenizer: Tokenizer, *, max_tokens: int) -> list[Example]:
    examples = []
    for number, context, word in read_passages(path):
      pieces = [(context, False), (word, True)]
      examples.append(cut(from_pieces(f"line {number}", pieces, tokenizer), max_tokens))
    return examples

  def judge(self, example: Example, answer: Answer) -> dict[str, str]:
    return {}

  def summary(self, records: Sequence[Record]) -> dict[str, float]:
    return {}


def read_passages(path: str) -> list[tuple[int, str, str]]:
  """Returns (line, text before, last word with the space before it) per record.

  Raises ValueError for records of another form.
  """
  passages = []
  for number, record in read_records(path, ("text",)):
    parts = _LAST_WORD.fullmatch(record["text"])
    if parts is None:
      raise ValueError(f"{path}, line {number}: a passage must have at least two words")
    passages.append((number, parts[1], parts[2]))
  return passages
