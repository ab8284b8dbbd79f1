"""What was said: a system message and turns, and which of them fit the model's context."""

import bisect
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mtjax.data.sources.text_files import parse_json, whole_text

Message = dict[str, Any]


class Turn(NamedTuple):
  """A message of the user and the reply to it."""

  user: str
  assistant: str


@dataclasses.dataclass(frozen=True)
class Conversation:
  """A system message, if any, and turns, of which the first `left_out` are not sent any more."""

  system: str | None = None
  turns: tuple[Turn, ...] = ()
  left_out: int = 0

  def messages(self, question: str | None = None) -> list[Message]:
    """Returns the messages that are sent, the last of them `question`; None: without one."""
    out = [] if self.system is None else [_message("system", self.system)]
    for turn in self.turns[self.left_out :]:
      out += [_message("user", turn.user), _message("assistant", turn.assistant)]
    return out if question is None else [*out, _message("user", question)]

  def plus(self, turn: Turn) -> "Conversation":
    return dataclasses.replace(self, turns=(*self.turns, turn))

  def as_json(self) -> str:
    """Returns all messages, also those that are left out, as a JSON list."""
    every = dataclasses.replace(self, left_out=0).messages()
    return json.dumps(every, ensure_ascii=False, indent=2) + "\n"


def parse_conversation(text: str, where: str) -> Conversation:
  """Returns the conversation of `as_json`; `where` is the file that errors name.

  Raises ValueError for anything but a list of {"role": ..., "content": ...}, where a system message
  may come first and messages of user and assistant follow in turn.
  """
  messages = parse_json(text, where)
  if not isinstance(messages, list) or not all(map(_is_message, messages)):
    raise ValueError(f'{where} must be a list of {{"role": "...", "content": "..."}}')
  contents = [whole_text(message["content"], where) for message in messages]
  roles = [message["role"] for message in messages]
  begin = 1 if roles[:1] == ["system"] else 0
  if roles[begin:] != ["user", "assistant"] * ((len(roles) - begin) // 2):
    raise ValueError(
      f"{where}: after a system message, if any, messages of user and assistant must follow each "
      f"other and end with the assistant, got {', '.join(map(str, roles[begin:]))[:80]}"
    )
  pairs = zip(contents[begin::2], contents[begin + 1 :: 2], strict=True)
  return Conversation(contents[0] if begin else None, tuple(Turn(*pair) for pair in pairs))


def fitted(
  conversation: Conversation,
  question: str,
  encode: Callable[[Sequence[Message]], list[int]],
  *,
  max_tokens: int,
  positions: int,
) -> tuple[Conversation, list[int]]:
  """Returns the conversation without the turns that do not fit, and the tokens of the question.

  The tokens are those of all messages that are sent. With `max_tokens` of a reply they must fit the
  model's `positions`. Whole turns are left out, the oldest first, never the system message; what
  was left out before stays so. Raises ValueError if the question alone is too long.
  """

  def without(number: int) -> Conversation:
    return dataclasses.replace(conversation, left_out=number)

  def tokens(number: int) -> list[int]:
    return encode(without(number).messages(question))

  def fits(number: int) -> bool:
    return len(tokens(number)) + max_tokens <= positions

  first, last = conversation.left_out, len(conversation.turns)
  number = first if fits(first) else bisect.bisect_left(range(last), True, lo=first + 1, key=fits)
  number = min(number, last)
  ids = tokens(number)
  if len(ids) + max_tokens > positions:
    raise ValueError(
      f"with the system message, this message has {len(ids)} tokens; with max_tokens {max_tokens} "
      f"that makes {len(ids) + max_tokens}, and the model has {positions} positions: write less, "
      "or set a smaller --config.max_tokens"
    )
  return without(number), ids


def _message(role: str, content: str) -> Message:
  return dict(role=role, content=content)


def _is_message(message: Any) -> bool:
  return isinstance(message, dict) and all(
    isinstance(message.get(name), str) for name in ("role", "content")
  )
