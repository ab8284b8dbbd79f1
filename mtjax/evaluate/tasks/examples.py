"""A text of which a part is asked, and the tokens that were there."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.data.pieces import encode_pieces
from mtjax.data.tokenizers import Tokenizer, pieces_of
from mtjax.evaluate.sets.infill import around

Piece = tuple[str, bool]  # text, and whether it is asked


@dataclasses.dataclass(frozen=True)
class Example:
  """All tokens of the reference, those that are asked, and what the task's judge needs."""

  name: str
  tokens: tuple[int, ...]
  is_target: tuple[bool, ...]
  about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if len(self.tokens) != len(self.is_target) or not any(self.is_target):
      raise ValueError(f"{self.name}: {len(self.tokens)} tokens, {sum(self.is_target)} asked")

  @property
  def blank(self) -> slice:
    """From the first asked token to the last."""
    stop = len(self.is_target) - self.is_target[::-1].index(True)
    return slice(self.is_target.index(True), stop)


def from_pieces(
  name: str, pieces: Sequence[Piece], tokenizer: Tokenizer, about: Mapping[str, Any] | None = None
) -> Example:
  """The pieces, each encoded by itself: where a blank ends is no hint at what is missing."""
  tokens: list[int] = []
  is_target: list[bool] = []
  encoded = encode_pieces(tokenizer, [text for text, _ in pieces])
  for ids, (_, is_asked) in zip(encoded, pieces, strict=True):
    tokens += ids
    is_target += [is_asked] * len(ids)
  return Example(name, tuple(tokens), tuple(is_target), about or {})


def cut(example: Example, max_tokens: int) -> Example:
  """The `max_tokens` tokens around the blank; ValueError for a blank that is longer."""
  start, stop = example.blank.start, example.blank.stop
  if stop - start > max_tokens:
    raise ValueError(
      f"{example.name}: a blank of {stop - start} tokens, and {max_tokens} have room"
    )
  left, right = around(start, stop - start, len(example.tokens) - stop, max_tokens)
  kept = slice(start - left, stop + right)
  return dataclasses.replace(
    example, tokens=example.tokens[kept], is_target=example.is_target[kept]
  )


def whole(example: Example, max_tokens: int) -> Example:
  """The example, which makes no sense in part; ValueError where it is longer than `max_tokens`."""
  if len(example.tokens) > max_tokens:
    raise ValueError(f"{example.name}: {len(example.tokens)} tokens, and {max_tokens} have room")
  return example


def causal_view(example: Example) -> Example:
  """What a causal model sees: nothing behind the blank, and within it everything is asked."""
  end, start = example.blank.stop, example.blank.start
  is_target = tuple(place >= start for place in range(end))
  return dataclasses.replace(example, tokens=example.tokens[:end], is_target=is_target)


def text_of(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
  """As it stands within a text: no space is added or lost at the ends, as `decode` may."""
  return b"".join(pieces_of(tokenizer, tokens)).decode("utf-8", "replace")
