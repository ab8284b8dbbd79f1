"""Prompts of equal length, cut from texts."""

from collections.abc import Mapping, Sequence

import numpy as np

from mtjax.data.tokenizers import Tokenizer
from mtjax.evaluate.texts import Documents, named_documents
from mtjax.pretrained import DEMO_PROMPTS

_STEP = 7  # tokens from the beginning of one window of the demo's prompts to the next


def demo_windows(tokenizer: Tokenizer, *, count: int, length: int) -> list[list[int]]:
  """Returns `count` windows of `length` tokens over the demo's prompts, each at another place."""
  text = [token for prompt in DEMO_PROMPTS for token in tokenizer.encode(prompt)]
  ring = np.resize(text, len(text) + length).tolist()
  return [ring[number * _STEP % len(text) :][:length] for number in range(count)]


def windows_of(
  sources: Sequence[str] | None, tokenizer: Tokenizer, *, count: int, length: int
) -> list[list[int]]:
  """Returns `prompt_windows` of "name=source" (`named_documents`), or else `demo_windows`."""
  if not sources:
    return demo_windows(tokenizer, count=count, length=length)
  return prompt_windows(named_documents(sources, tokenizer), count=count, length=length)


def prompt_windows(texts: Mapping[str, Documents], *, count: int, length: int) -> list[list[int]]:
  """Returns `count` windows of `length` tokens per text, of documents and places chosen at random.

  The same numbers give the same windows. Raises ValueError for a text without a document of that
  length.
  """
  random, out = np.random.default_rng(0), []
  for name, documents in texts.items():
    long = [tokens for tokens, _ in documents if len(tokens) >= length]
    if not long:
      raise ValueError(f"the text {name!r} has no document of {length} tokens")
    for _ in range(count):
      tokens = long[random.integers(len(long))]
      first = random.integers(len(tokens) - length + 1)
      out.append(np.asarray(tokens[first : first + length]).tolist())
  return out
