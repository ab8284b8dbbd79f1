"""Prompts of questions as token ids, in the chat format of a model or as plain text."""

from collections.abc import Sequence
from typing import Any

from mtjax.data.tokenizers import Tokenizer
from mtjax.evaluate.answers.protocol import CHAT, TEXT, AnswerTask, Question


def has_template(tokenizer: Tokenizer) -> bool:
  """Returns whether a tokenizer has a chat template. Raises ImportError without jinja2."""
  encode_chat = getattr(tokenizer, "encode_chat", None)
  if encode_chat is None:
    return False
  try:
    encode_chat([dict(role="user", content="a")])
  except FileNotFoundError:
    return False
  return True


def format_for(tokenizer: Tokenizer, task: AnswerTask, name: str, wanted: str | None) -> str:
  """Returns the format of a task's prompts: `wanted`, or else the task's first that the model has.

  Raises ValueError for a format that the task `name` or the tokenizer does not have.
  """
  if wanted is not None and wanted not in task.formats:
    known = " and ".join(task.formats)
    raise ValueError(f"{name} has prompts as {known} only, not as {wanted}: leave --prompt_format")
  if TEXT in (wanted, task.formats[0]) and wanted != CHAT:
    return TEXT
  if has_template(tokenizer):
    return CHAT
  if wanted == CHAT:
    raise ValueError(
      "this model has no chat template, so it takes no prompts in the chat format: use "
      "--prompt_format=text"
    )
  return TEXT


def prompt_ids(
  tokenizer: Tokenizer, prompt_format: str, question: Question, answers: Sequence[str]
) -> list[int]:
  """Returns the prompt of the turn that follows `answers`, the texts of the turns before it.

  "chat": all messages so far in the model's template, and the beginning of the model's message.
  "text": turns and answers, one after the other.
  """
  turns = question.turns[: len(answers) + 1]
  if prompt_format == TEXT:
    before = "".join(f"{turn}{answer}" for turn, answer in zip(turns, answers, strict=False))
    return list(tokenizer.encode(before + turns[-1]))
  said = [question.begun + answer for answer in answers[:1]] + list(answers[1:])
  messages = [dict(role="user", content=turns[0])]
  for answer, turn in zip(said, turns[1:], strict=True):
    messages += [dict(role="assistant", content=answer), dict(role="user", content=turn)]
  encode_chat: Any = getattr(tokenizer, "encode_chat")  # noqa: B009 - not every tokenizer has it
  ids = list(encode_chat(messages))
  begun = "" if answers else question.begun
  return ids + list(tokenizer.encode_documents([begun])[0])
