"""The protocol of tasks: texts with blanks, and a judge of how they are filled."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mtjax.data.tokenizers import Tokenizer
from mtjax.evaluate.tasks.examples import Example

Record = dict[str, Any]  # the result of one example in one order; fits in a line of JSON


@dataclasses.dataclass(frozen=True)
class Answer:
  """An example as a model filled it."""

  tokens: tuple[int, ...]  # as many as the example has
  blank: str  # the text from the first target to the last
  text: str  # the whole text, as far as the model saw it


@runtime_checkable
class Task(Protocol):
  """A task: one class per set of problems."""

  @property
  def temperature(self) -> float:
    """The temperature that published results use; 0 is greedy."""
    ...

  def examples(self, path: str, tokenizer: Tokenizer, *, max_tokens: int) -> list[Example]:
    """Returns all examples of a file, as texts of at most `max_tokens` tokens.

    Raises FileNotFoundError, and ValueError for a file of another kind.
    """
    ...

  def judge(self, example: Example, answer: Answer) -> Record:
    """Returns the fields of an answer's record beside its likelihood and its exact match."""
    ...

  def summary(self, records: Sequence[Record]) -> Mapping[str, float]:
    """Returns figures of all answers, by the names of `mtjax.report.infilling_tables`."""
    ...


def share(records: Sequence[Record], field: str, value: Any = True) -> float:
  """Returns the share of the records whose `field` is `value`."""
  return sum(record[field] == value for record in records) / len(records)
