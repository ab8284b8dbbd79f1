"""64 prompts that people and programs wrote, from what is there on any machine."""

import argparse
import collections
import csv
import inspect
import json.decoder
import string
import textwrap
import types

# Stories and sums as the bundled model was trained on; none of them is in its text.
_BEGINNINGS = (
  "The old clock struck nine, and the children ran down to the garden, where",
  "Once upon a time there was a poor miller who had",
  "It was a cold evening in November when the stranger came to the door of",
  '"I do not believe a word of it," said the captain, and',
  "The ship had been at sea for forty days, and the men were",
  "My grandmother always told me that",
  "In the middle of the forest stood a small house, and in it lived",
  "She opened the letter with trembling hands and read:",
)
_SUMS = (
  "Anna has {a} boxes with {b} apples in each box. She eats {c} apples. How many are left?",
  "A train travels {b} miles an hour for {a} hours. How far does it go?",
  "Tom buys {a} books for ${b} each and pays with ${c} more. What did he pay?",
  "There are {b} birds in a tree. {a} fly away and {c} come. How many birds are there?",
)
_READ = (argparse, collections, csv, json.decoder, string, textwrap)
MODULES = tuple(module.__name__ for module in _READ)


def real_prompts() -> list[str]:
  """8 beginnings of stories, 16 sums, 40 functions of the standard library cut in the middle."""
  sums = [
    f"Question: {text.format(a=3 + i, b=12 + 5 * i, c=2 * i + 1)}\nAnswer:"
    for text in _SUMS
    for i in range(4)
  ]
  return [*_BEGINNINGS, *sums, *_functions(40)]


def _functions(count: int) -> list[str]:
  found = []
  for module in _READ:
    for owner in (module, *_classes(module)):
      for _, member in sorted(vars(owner).items()):
        if isinstance(member, types.FunctionType) and member.__module__ == module.__name__:
          source = inspect.getsource(member)
          if len(source) > 300:
            found.append(textwrap.dedent(source))
  # Spread over all of them; half of each function, at most 600 characters.
  chosen = [found[i * len(found) // count] for i in range(count)]
  return [source[: min(len(source) // 2, 600)] for source in chosen]


def _classes(module) -> list[type]:
  every = (value for _, value in sorted(vars(module).items()))
  return [c for c in every if isinstance(c, type) and c.__module__ == module.__name__]
