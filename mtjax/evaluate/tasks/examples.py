"""A text with blanks, and the tokens that were there."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.data.pieces import encode_pieces
from mtjax.data.tokenizers import Tokenizer, pieces_of
from mtjax.evaluate.sets.infill import around

Piece = tuple[str, bool]  # a text, and True if it is a target


@dataclasses.dataclass(frozen=True)
class Example:
  """All tokens of the reference, which of them are targets, and what the task's judge needs."""

  name: str
  tokens: tuple[int, ...]
  is_target: tuple[bool, ...]
  about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if len(self.tokens) != len(self.is_target) or not any(self.is_target):
      raise ValueError(
        f"{self.name}: tokens and is_target must be as many, with a target among them: got "
        f"{len(self.tokens)} tokens, {len(self.is_target)} flags, {sum(self.is_target)} targets"
      )

  @property
  def blank(self) -> slice:
    """The slice from the first target to the last."""
    stop = len(self.is_target) - self.is_target[::-1].index(True)
    return slice(self.is_target.index(True), stop)


def from_pieces(
  name: str, pieces: Sequence[Piece], tokenizer: Tokenizer, about: Mapping[str, Any] | None = None
) -> Example:
  """Returns the example of the pieces, each of which is encoded by itself.

  So where a blank begins and ends is no hint at what is missing.
  """
  tokens: list[int] = []
  is_target: list[bool] = []
  encoded = encode_pieces(tokenizer, [text for text, _ in pieces])
  for ids, (_, missing) in zip(encoded, pieces, strict=True):
    tokens += ids
    is_target += [missing] * len(ids)
  return Example(name, tuple(tokens), tuple(is_target), about or {})


def cut(example: Example, max_tokens: int) -> Example:
  """Returns the `max_tokens` tokens around the blank. Raises ValueError for a longer blank."""
  start, stop = example.blank.start, example.blank.stop
  if stop - start > max_tokens:
    raise ValueError(
      f"{example.name}: a blank of {stop - start} tokens does not fit in {max_tokens} tokens"
    )
  left, right = around(start, stop - start, len(example.tokens) - stop, max_tokens)
  kept = slice(start - left, stop + right)
  return dataclasses.replace(
    example, tokens=example.tokens[kept], is_target=example.is_target[kept]
  )


def whole(example: Example, max_tokens: int) -> Example:
  """Returns the example, which must not be cut. Raises ValueError if it exceeds `max_tokens`."""
  if len(example.tokens) > max_tokens:
    raise ValueError(
      f"{example.name}: {len(example.tokens)} tokens do not fit in {max_tokens}, and this task's "
      "texts cannot be cut"
    )
  return example


def causal_view(example: Example) -> Example:
  """Returns what a causal model sees: nothing after the blank, and all of the blank is a target."""
  end, start = example.blank.stop, example.blank.start
  is_target = tuple(place >= start for place in range(end))
  return dataclasses.replace(example, tokens=example.tokens[:end], is_target=is_target)


def text_of(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
  """Decodes tokens as they stand within a text: no space is added or lost at the ends."""
  return b"".join(pieces_of(tokenizer, tokens)).decode("utf-8", "replace")
