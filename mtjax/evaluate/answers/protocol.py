"""The protocol of tasks that a model answers in writing, and their questions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mtjax.evaluate.tasks.protocol import Record

CHAT, TEXT = "chat", "text"  # formats of a prompt; what they are says `prompts.prompt_ids`


@dataclasses.dataclass(frozen=True)
class Question:
  """What a model is to continue.

  In the chat format `turns` are the user's messages and `begun` is the beginning of the model's
  first message, which it continues. In plain text the prompt is the turns, with the model's answers
  between them, and `begun` is empty.
  """

  name: str
  turns: tuple[str, ...]
  begun: str = ""
  about: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what the judge needs


@runtime_checkable
class AnswerTask(Protocol):
  """A task: one class per set of questions."""

  @property
  def formats(self) -> tuple[str, ...]:
    """The formats that the task has; the default is the first one that the model has, too."""
    ...

  @property
  def max_tokens(self) -> int:
    """The default of the largest number of tokens of an answer."""
    ...

  @property
  def measure(self) -> str | None:
    """The name of the score, the share of right answers. None: answers are only shown."""
    ...

  @property
  def convention(self) -> str:
    """A sentence that says which prompt, stop strings and comparison are used, and whose."""
    ...

  def stop(self, prompt_format: str) -> tuple[str, ...]:
    """Returns the strings that end an answer, besides the model's end tokens."""
    ...

  def questions(self, path: str, prompt_format: str) -> list[Question]:
    """Returns all questions of a file.

    Raises FileNotFoundError, and ValueError, with the line, for a file of another kind.
    """
    ...

  def judge(self, question: Question, answers: Sequence[str]) -> Record:
    """Returns the fields of a record about the answers, one per turn.

    `right` is among them, True or False, if the task has a `measure`.
    """
    ...
