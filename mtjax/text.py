"""Text in, text out: the functions for launchers and notebooks."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mtjax.arguments import texts
from mtjax.data.streaming import TextStream
from mtjax.data.tokenizers import Tokenizer
from mtjax.decode import generation as decode
from mtjax.decode.generation import Generation
from mtjax.models import Model, Params
from mtjax.rounds.stop_strings import StopStrings

Prompt = str | Sequence[int]  # a text, or token ids as `Tokenizer.encode_chat` returns them


@dataclasses.dataclass(frozen=True)
class Completion:
  """The continuation of a prompt: its text ends before a stop string or the end token."""

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
    self, prompts: str | Sequence[Prompt], *, stop: str | Sequence[str] = (), **settings: Any
  ) -> tuple[list[Completion], Generation]:
    """Completes each prompt; settings are those of `mtjax.decode.generate`.

    One text in place of several, as a prompt or a stop string, is a list of one. Rows end at the
    tokenizer's end tokens unless `eos` is set. Returns the completions and the generation that they
    come from. Raises ValueError as `generate` does, for a prompt without tokens, and for a stop
    string that is no text.
    """
    prompts, stop = texts(prompts), _stop_strings(stop)
    arguments = self._arguments(prompts, stop, settings)
    generation = decode.generate(self.model, self.params, **arguments)
    return self._completions(prompts, stop, generation), generation

  def stream(
    self,
    prompts: str | Sequence[Prompt],
    *,
    stop: str | Sequence[str] = (),
    on_finish: Callable[[list[Completion], Generation], None] | None = None,
    **settings: Any,
  ) -> Iterator[list[str]]:
    """Yields the same text in pieces: the new text of each row, whole characters only.

    Text that may begin a stop string is held back until it is certain that it does not.
    """
    prompts, stop = texts(prompts), _stop_strings(stop)
    arguments = self._arguments(prompts, stop, settings)

    def finished(generation):
      if on_finish is not None:
        on_finish(self._completions(prompts, stop, generation), generation)

    rounds = decode.stream(self.model, self.params, on_finish=finished, **arguments)
    return self._pieces(rounds, [TextStream(self.tokenizer, stop) for _ in prompts])

  def _pieces(self, rounds, rows: list[TextStream]) -> Iterator[list[str]]:
    for new in rounds:
      pieces = [row.feed(tokens) for row, tokens in zip(rows, new, strict=True)]
      if any(pieces):
        yield pieces
    rest = [row.finish() for row in rows]
    if any(rest):
      yield rest

  def _arguments(self, prompts, stop, settings) -> dict:
    encode = self.tokenizer.encode
    for row, prompt in enumerate(prompts):
      if isinstance(prompt, bytes):
        raise ValueError(f"prompt {row} is bytes: a prompt is a text or a list of token ids")
    ids = [encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    automaton = None
    if stop:
      tokenizer = self.tokenizer
      automaton = StopStrings.compile(stop, tokenizer.token_bytes(), tokenizer.special_tokens())
    # A tokenizer may have end tokens that the model lacks: the model never emits them.
    eos = [token for token in self.tokenizer.eos_ids if token < self.model.config.vocab_size]
    return {"prompts": ids, "stop": automaton, "eos": eos, **settings}

  def _completions(self, prompts, stop, generation) -> list[Completion]:
    out = []
    for prompt, ids, finish in zip(prompts, generation.tokens, generation.finish, strict=True):
      row = TextStream(self.tokenizer, stop)
      text = row.feed(ids) + row.finish()
      shown = prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt)
      out.append(Completion(shown, text, ids, finish))
    return out


def _stop_strings(stop: str | Sequence[str]) -> list[str]:
  words = texts(stop)
  for word in words:
    if not isinstance(word, str):
      raise ValueError(f"stop strings are texts, got {word!r}")
  return words
