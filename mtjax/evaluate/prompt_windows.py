"""Prompts of equal length, cut from texts."""

from collections.abc import Mapping

import numpy as np

from mtjax.evaluate.texts import Documents


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
