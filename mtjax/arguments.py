"""Arguments that may come in several forms: whole numbers, and one text in place of several."""

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Array, Integer

Whole = int | np.integer | Integer[np.ndarray | Array, ""]
# One number for all rows, or one per row.
Wholes = Whole | Sequence[Whole] | Integer[np.ndarray | Array, "_"]
# The ids of one text. Texts may differ in length.
TokenIds = Sequence[Whole] | Integer[np.ndarray | Array, "_"]


def integer(value: SupportsIndex, name: str) -> int:
  """Returns a whole number as an int.

  It may be Python's, numpy's or an array without dimensions. Raises ValueError, with the argument's
  name, for anything else, a bool included.
  """
  try:
    number = operator.index(value)
  except TypeError:
    number = None
  if number is None or isinstance(value, bool):
    raise ValueError(f"{name} must be a whole number, got {value!r}")
  return number


def texts(values: Any) -> list[Any]:
  """Returns one text or several as a list; one text is a list of one, not of its characters."""
  return [values] if isinstance(values, str | bytes) else list(values)
