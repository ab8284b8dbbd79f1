"""Arguments that callers may pass in several forms: whole numbers, one text or several."""

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Array, Integer

Whole = int | np.integer | Integer[np.ndarray | Array, ""]
# One number for all rows, or one per row.
Wholes = Whole | Sequence[Whole] | Integer[np.ndarray | Array, "_"]
# Names of lengths of one text; each text may have its own.
TokenIds = Sequence[Whole] | Integer[np.ndarray | Array, "_"]


def integer(value: SupportsIndex, name: str) -> int:
  """Returns a whole number as an int.

  It may be Python's, numpy's or an array without dimensions. Raises ValueError, with the argument's
  name, for anything else.
  """
  try:
    return operator.index(value)
  except TypeError:
    raise ValueError(f"{name} must be a whole number, got {value!r}") from None


def texts(values: Any) -> list[Any]:
  """Returns one text or several texts as a list.

  A text alone is a list of one, and not of its characters.
  """
  return [values] if isinstance(values, str | bytes) else list(values)
