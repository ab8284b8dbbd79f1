"""What a task is: texts with blanks, and a judge of how they are filled."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mtjax.data.tokenizers import Tokenizer
from mtjax.evaluate.tasks.examples import Example

Record = dict[str, Any]  # of one example in one order; fits in a line of JSON


@dataclasses.dataclass(frozen=True)
class Answer:
  """An example as it was filled."""

  tokens: tuple[int, ...]  # as many as the example has
  blank: str  # the text from the first asked token to the last
  text: str  # all of it, as far as the model saw it


@runtime_checkable
class Task(Protocol):
  """One per set."""

  @property
  def temperature(self) -> float:
    """What its figures are usually drawn at; 0 is greedy."""
    ...

  def examples(self, path: str, tokenizer: Tokenizer, *, max_tokens: int) -> list[Example]:
    """All of a file, in texts of at most `max_tokens` tokens; FileNotFoundError, ValueError."""
    ...

  def judge(self, example: Example, answer: Answer) -> Record:
    """What is to be known of an answer beside its likelihood and whether it is the reference."""
    ...

  def summary(self, records: Sequence[Record]) -> Mapping[str, float]:
    """Figures of all answers, by the names of `mtjax.report.infilling_tables`."""
    ...


def share(records: Sequence[Record], field: str, value: Any = True) -> float:
  """Of the records whose `field` is `value`."""
  return sum(record[field] == value for record in records) / len(records)
