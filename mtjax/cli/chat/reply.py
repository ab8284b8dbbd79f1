"""One reply of a chat: streamed, interrupted by Ctrl-C, with a line of figures."""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from mtjax.decode.generation import Generation
from mtjax.decode.prefix import Prefix
from mtjax.text import TextModel


@dataclasses.dataclass(frozen=True)
class Reply:
  """The text of a reply and how it came about."""

  text: str
  figures: str
  prefix: Prefix  # what is known of the text now


def reply(
  text: TextModel,
  tokens: Sequence[int],
  prefix: Prefix,
  settings: Mapping[str, Any],
  *,
  write: Callable[[str], None],
  interrupted: Callable[[], bool],
  since: float,
) -> Reply:
  """Returns the reply to a rendered conversation, and calls `write` with each new piece of it.

  `settings` are those of `TextModel.stream`; every round gives a piece. What `prefix` holds of the
  conversation is not computed again. Once `interrupted` is true, what was written so far is the
  reply. `since` is the moment from which the time to
  the first text is counted, of `time.perf_counter`.
  """
  pieces: list[str] = []
  done: list[tuple[str, Generation]] = []
  known = [prefix]
  first = None
  rounds = text.stream(
    [list(tokens)],
    every=1,
    prefix=prefix,
    on_prefix=known.append,
    on_finish=lambda completions, run: done.append((completions[0].text, run)),
    **settings,
  )
  with contextlib.closing(rounds):
    for (piece,) in rounds:
      first = time.perf_counter() - since if first is None else first
      pieces.append(piece)
      write(piece)
      if interrupted():
        break
  whole = done[0][0] if done else "".join(pieces)
  return Reply(whole, _figures(done[0][1] if done else None, first), known[-1])


def _figures(run: Generation | None, first: float | None) -> str:
  """Returns the line under a reply; `first` is the time of its first text."""
  if run is None:
    return "[interrupted; what was written is kept]"
  cost = run.counters
  parts = [
    f"{cost['tokens']} tokens",
    f"{cost['tokens_per_second']:.1f} tokens per second",
    f"{cost['tokens_per_forward']:.2f} tokens per forward",
  ]
  if first is not None:
    parts.append(f"first text after {first:.2f} s")
  if cost["compile_seconds"] > 0:
    parts.append(f"{cost['compile_seconds']:.1f} s of compilation")
  if run.finish == ["length"]:
    parts.append("ended by --config.max_tokens")
  return f"[{', '.join(parts)}]"


@contextlib.contextmanager
def interruptible() -> Generator[Callable[[], bool]]:
  """Yields a function that says whether Ctrl-C was pressed; pressed twice, it is an exception.

  An exception at any moment could leave JAX half way through its work.
  """
  pressed = threading.Event()
  before = signal.getsignal(signal.SIGINT)

  def press(number, frame) -> None:
    if pressed.is_set():
      raise KeyboardInterrupt
    pressed.set()

  signal.signal(signal.SIGINT, press)
  try:
    yield pressed.is_set
  finally:
    signal.signal(signal.SIGINT, before)
