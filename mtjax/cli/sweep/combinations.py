"""Combinations of values, for the sweep() of a config file."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any


def product(values: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
  """Returns the settings of every combination of values; the last key changes first.

  `values` has, for each flag, the values that it takes:

      product({"config.optimizer.learning_rate": [1e-3, 1e-2], "config.batch": [4, 8]})

  are four settings. Raises ValueError for a flag with text in place of a list of texts.
  """
  lists = _lists(values)
  return [dict(zip(lists, one, strict=True)) for one in itertools.product(*lists.values())]


def zipped(values: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
  """Returns the settings that take the first value of every flag, then the second, and so on.

  Raises ValueError for lists of different lengths.
  """
  lists = _lists(values)
  lengths = {name: len(list_) for name, list_ in lists.items()}
  if len(set(lengths.values())) > 1:
    raise ValueError(f"zipped() needs as many values for each flag: got {lengths}")
  return [dict(zip(lists, one, strict=True)) for one in zip(*lists.values(), strict=True)]


def _lists(values: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
  for name, each in values.items():
    if isinstance(each, str) or not isinstance(each, Iterable):
      raise ValueError(f"{name!r} needs a list of values, such as [{each!r}]: got {each!r}")
  return {name: list(each) for name, each in values.items()}
