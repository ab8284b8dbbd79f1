"""What callers hand over in more than one form: whole numbers, and one text in place of several."""

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Array, Integer

Whole = int | np.integer | Integer[np.ndarray | Array, ""]
# One number for all rows, or one per row.
Wholes = Whole | Sequence[Whole] | Integer[np.ndarray | Array, "_"]
# A text's; each may have a length of its own.
TokenIds = Sequence[Whole] | Integer[np.ndarray | Array, "_"]


def integer(value: SupportsIndex, name: str) -> int:
  """Returns a whole number of Python, of numpy, or of an array of no dimension as an int.

  Raises ValueError, with the argument's name, for anything else.
  """
  try:
    return operator.index(value)
  except TypeError:
    raise ValueError(f"{name} must be a whole number, got {value!r}") from None


def texts(values: Any) -> list[Any]:
  """Returns what callers give as one text or as several as a list.

  A text alone is a list of one, and not of its characters.
  """
  return [values] if isinstance(values, str | bytes) else list(values)
