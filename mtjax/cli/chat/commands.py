"""Lines of a chat that begin with /: they act on the conversation, and are not sent."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from mtjax.cli.chat.conversation import Conversation, parse_conversation
from mtjax.data.sources.text_files import read_text
from mtjax.display.short import counted

# (conversation, what follows the command) -> (the conversation after it, what the user is told).
Action = Callable[[Conversation, str], tuple[Conversation, str]]


@dataclasses.dataclass(frozen=True)
class Command:
  """What a command does, as /help shows it; without an action it ends the chat."""

  usage: str
  meaning: str
  action: Action | None = None


def obey(conversation: Conversation, line: str) -> tuple[Conversation, str] | None:
  """Returns the conversation after a command and what the user is told; None to end the chat.

  Raises ValueError for an unknown command, for one without its file or with words that it does not
  take, and for a file that is no conversation; OSError for files that cannot be read or written.
  """
  name, _, argument = line.strip().partition(" ")
  command = COMMANDS.get(name)
  if command is None:
    raise ValueError(
      f"there is no command {name}; /help lists them. A message that begins with / needs a space "
      "before it"
    )
  argument = argument.strip()
  if bool(argument) != (" " in command.usage) and name != "/system":
    raise ValueError(f"{line.strip()!r} is not {command.usage!r}")
  return None if command.action is None else command.action(conversation, argument)


def _reset(conversation: Conversation, _: str) -> tuple[Conversation, str]:
  kept = "" if conversation.system is None else "; the system message is kept"
  return Conversation(conversation.system), f"the conversation is empty{kept}"


def _system(conversation: Conversation, text: str) -> tuple[Conversation, str]:
  new = dataclasses.replace(conversation, system=text or None)
  return new, "the system message is set" if text else "there is no system message"


def _save(conversation: Conversation, file: str) -> tuple[Conversation, str]:
  path = Path(file).expanduser()
  path.write_text(conversation.as_json(), encoding="utf-8")
  return conversation, f"{file} holds {counted(len(conversation.turns), 'turn')}"


def _load(_: Conversation, file: str) -> tuple[Conversation, str]:
  new = parse_conversation(read_text(Path(file).expanduser()), file)
  return new, f"the conversation is that of {file}, {counted(len(new.turns), 'turn')}"


def _help(conversation: Conversation, _: str) -> tuple[Conversation, str]:
  lines = [f"{command.usage:14} {command.meaning}" for command in COMMANDS.values()]
  return conversation, "\n".join([*lines, "Ctrl-C stops a reply, Ctrl-D ends the chat."])


COMMANDS: Mapping[str, Command] = {
  command.usage.split()[0]: command
  for command in (
    Command("/help", "shows these lines", _help),
    Command("/reset", "forgets all turns; the system message stays", _reset),
    Command("/system TEXT", "sets the system message; without TEXT there is none", _system),
    Command("/save FILE", "writes the messages as JSON", _save),
    Command("/load FILE", "goes on from messages that /save has written", _load),
    Command("/exit", "ends the chat"),
  )
}
