"""The loop of a chat: a line is read, the reply is streamed, and both join the history."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mtjax.cli.chat.commands import obey
from mtjax.cli.chat.conversation import Conversation, Message, Turn, fitted
from mtjax.cli.chat.reply import interruptible, reply
from mtjax.cli.running import progress
from mtjax.data.sources.text_files import BYTE_ORDER_MARK
from mtjax.decode.prefix import Prefix, text_size
from mtjax.display.short import counted
from mtjax.registry.build import run_settings
from mtjax.registry.by_name import NamedMethod
from mtjax.text import TextModel

_PROMPT = ">>> "
_SEEDS = 2**32


def converse(config: Mapping[str, Any], text: TextModel) -> None:
  """Runs a chat on standard input and output until /exit or the end of the input.

  Each line is a message of the user. All turns are rendered by the model's chat template, and reply
  number n, from 0, is what plain decoding of that text gives with the seed config.seed + n, if the
  method is lossless. Keys and values of earlier turns stay in a cache: of a prompt, only tokens
  after its common beginning with the text before are computed, which is the new message where the
  template renders earlier turns as before. A draft model, if any, reads the whole text again. Where
  the config asks for a plan, there is one for each power of two of tokens that the chat grows to.

  Replies go to standard output, all else to standard error. On a terminal a line that is refused is
  answered, and the chat goes on; from a pipe it ends the program. Raises ValueError, before
  anything is compiled, for a model without a chat template, and for bad settings.
  """
  encode = chat_encoder(text)
  method, settings = NamedMethod(config, {}), run_settings(config)
  # What is wrong with its settings is said before the first message. The shortest text is a reply.
  method.bind(text, sampling=settings["sampling"], tokens=settings["max_tokens"])
  settings["method"] = method
  chat = _Chat(text, encode, settings)
  if sys.stdin.isatty():
    progress(f"{text!r}\nMethod {config['method']}. /help lists the commands, Ctrl-D ends.")
  for line in _lines():
    try:
      with interruptible() as interrupted:
        if not chat.hear(line, interrupted):
          return
    except (ValueError, OSError) as error:
      if isinstance(error, BrokenPipeError) or not sys.stdin.isatty():
        raise
      progress(f"mtjax: {error}")


Encode = Callable[[Sequence[Message]], list[int]]


def chat_encoder(text: TextModel) -> Encode:
  """Returns the function from messages to the tokens of the model's chat template.

  Raises ValueError that says what to do if the model has no template.
  """
  encode_chat = getattr(text.tokenizer, "encode_chat", None)
  try:
    if encode_chat is not None:
      encode_chat([dict(role="user", content="Hello")])
      return encode_chat
  except FileNotFoundError:
    pass
  raise ValueError(
    f"{text.name!r} has no chat template, which --chat needs: take a chat model "
    "(--config.model=smollm2, or a folder with chat_template.jinja, or with chat_template in "
    "tokenizer_config.json), or leave --chat out and continue plain text"
  )


class _Chat:
  """A conversation that goes on, and what the model knows of its text."""

  def __init__(self, text: TextModel, encode: Encode, settings: Mapping[str, Any]):
    self._text, self._encode, self._settings = text, encode, dict(settings)
    self._seed = self._settings.pop("key")
    self._conversation = Conversation()
    self._prefix = Prefix()
    self._sizes: set[int] = set()

  def hear(self, line: str, interrupted: Callable[[], bool]) -> bool:
    """Obeys a command or replies to a message. Returns false for the command that ends the chat."""
    if not line.strip():
      return True
    if not line.startswith("/"):
      self._answer(line.strip(), interrupted)
      return True
    obeyed = obey(self._conversation, line)
    if obeyed is not None:
      self._conversation, told = obeyed
      progress(told)
    return obeyed is not None

  def _answer(self, question: str, interrupted: Callable[[], bool]) -> None:
    since, model, max_tokens = time.perf_counter(), self._text.model, self._settings["max_tokens"]
    before, positions = self._conversation.left_out, model.config.max_position
    conversation, tokens = fitted(
      self._conversation, question, self._encode, max_tokens=max_tokens, positions=positions
    )
    if conversation.left_out > before:
      progress(
        f"the conversation no longer fits the model's {positions} positions; left out from here "
        f"on: the oldest {counted(conversation.left_out, 'turn')}"
      )
    self._tell_of_compilation(text_size(len(tokens), positions))
    # Replies of one seed would share their randomness.
    settings = dict(self._settings, key=(self._seed + len(conversation.turns)) % _SEEDS)
    answer = reply(
      self._text,
      tokens,
      self._prefix,
      settings,
      write=_write,
      interrupted=interrupted,
      since=since,
    )
    print(flush=True)
    progress(answer.figures)
    self._prefix = answer.prefix
    self._conversation = conversation.plus(Turn(question, answer.text))

  def _tell_of_compilation(self, size: int) -> None:
    if size not in self._sizes:
      progress(f"compiling for texts of up to {size} tokens")
    self._sizes.add(size)


def _write(piece: str) -> None:
  print(piece, end="", flush=True)


def _lines() -> Iterator[str]:
  """Yields the lines of standard input: on a terminal with a prompt, and Ctrl-C drops a line."""
  if not sys.stdin.isatty():
    for number, line in enumerate(sys.stdin):
      yield line.removeprefix(BYTE_ORDER_MARK) if number == 0 else line
    return
  if importlib.util.find_spec("readline") is not None:
    importlib.import_module("readline")  # `input` then has a history and keys to edit a line
  while True:
    try:
      line = input(_PROMPT)
    except KeyboardInterrupt:
      progress("\nCtrl-D or /exit ends the chat")
      continue
    except EOFError:
      print(file=sys.stderr)
      return
    yield line
