"""Text in, text out: what launchers and notebooks call."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from mtjax import decode
from mtjax.decode import Generation
from mtjax.models import Model, Params
from mtjax.stopping import StopStrings


class Tokenizer(Protocol):
  """What text generation needs of a tokenizer (see mtjax.data.tokenizers)."""

  vocab_size: int
  eos_id: int

  def encode(self, text: str) -> list[int]: ...

  def decode(self, ids: Sequence[int]) -> str: ...

  def token_bytes(self) -> list[bytes]:
    """What each id stands for; special tokens stand for nothing."""
    ...


@dataclasses.dataclass(frozen=True)
class Completion:
  """A prompt's continuation: text up to, not including, a stop string or the end token."""

  prompt: str
  text: str
  tokens: list[int]
  finish: str


@dataclasses.dataclass(frozen=True)
class TextModel:
  """A model with its parameters and tokenizer."""

  model: Model
  params: Params
  tokenizer: Tokenizer

  def generate(
    self, prompts: Sequence[str], *, stop: Sequence[str] = (), **settings
  ) -> tuple[list[Completion], Generation]:
    """Completes each prompt; settings are those of `mtjax.decode.generate`.

    Rows end at the tokenizer's end token unless `eos` says otherwise. Raises ValueError as
    `generate` does, and for a prompt of no token.
    """
    arguments = self._arguments(prompts, stop, settings)
    generation = decode.generate(self.model, self.params, **arguments)
    return self._completions(prompts, stop, generation), generation

  def stream(
    self,
    prompts: Sequence[str],
    *,
    stop: Sequence[str] = (),
    on_finish: Callable[[list[Completion], Generation], None] | None = None,
    **settings,
  ) -> Iterator[list[str]]:
    """The same text in pieces: yields what is new in each row, whole characters only.

    What may turn out to be the beginning of a stop string is held back until it is not.
    """
    arguments = self._arguments(prompts, stop, settings)

    def finished(generation):
      if on_finish is not None:
        on_finish(self._completions(prompts, stop, generation), generation)

    rounds = decode.stream(self.model, self.params, on_finish=finished, **arguments)
    return self._pieces(rounds, len(prompts), stop)

  def _pieces(self, rounds, batch, stop) -> Iterator[list[str]]:
    ids: list[list[int]] = [[] for _ in range(batch)]
    shown = [0] * batch
    for new in rounds:
      pieces = []
      for row, tokens in enumerate(new):
        ids[row] += tokens
        safe = len(self._safe_text(ids[row], stop))
        text = self._text(ids[row], stop)
        pieces.append(text[shown[row] : safe])
        shown[row] = max(shown[row], safe)
      if any(pieces):
        yield pieces
    rest = [self._text(row, stop)[begin:] for row, begin in zip(ids, shown, strict=True)]
    if any(rest):
      yield rest

  def _safe_text(self, ids, stop) -> str:
    """The text that no later token can change or cut."""
    text = self._text(ids, stop).rstrip("\ufffd")
    held = max(
      (n for word in stop for n in range(1, len(word)) if text.endswith(word[:n])), default=0
    )
    return text[: len(text) - held]

  def _text(self, ids, stop) -> str:
    text = self.tokenizer.decode([token for token in ids if token != self.tokenizer.eos_id])
    ends = [text.index(word) for word in stop if word in text]
    return text[: min(ends)] if ends else text

  def _arguments(self, prompts, stop, settings) -> dict:
    ids = [self.tokenizer.encode(prompt) for prompt in prompts]
    automaton = StopStrings.compile(stop, self.tokenizer.token_bytes()) if stop else None
    return {"prompts": ids, "stop": automaton, "eos": (self.tokenizer.eos_id,), **settings}

  def _completions(self, prompts, stop, generation) -> list[Completion]:
    rows = zip(prompts, generation.tokens, generation.finish, strict=True)
    return [Completion(p, self._text(ids, stop), ids, finish) for p, ids, finish in rows]
