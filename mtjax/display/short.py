"""Representations of a few lines, which show the form of arrays and read none of them."""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_TEXT = 60  # largest number of characters of a text or of an object without fields
_MAX_ITEMS = 4  # largest number of different neighbours of a sequence that are shown
_UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def short_repr(carrier: Any) -> str:
  """Returns `Name(field=float32[2, 3], ...)`: the fields that are not None, arrays by their form.

  For dataclasses and named tuples that carry arrays, as their `__repr__`. No array is read, so that
  tracers, jax.ShapeDtypeStruct and arrays of other processes have one too.
  """
  names = getattr(carrier, "_fields", None) or [f.name for f in dataclasses.fields(carrier)]
  values = ((name, getattr(carrier, name)) for name in names)
  inside = ", ".join(f"{name}={short(value)}" for name, value in values if value is not None)
  return f"{type(carrier).__name__}({inside})"


def short(value: Any) -> str:
  """Returns one value of `short_repr`; equal neighbours of a sequence are counted: "6 x ..."."""
  if hasattr(value, "shape") and hasattr(value, "dtype"):
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
  if isinstance(value, enum.Enum):
    return str(value)
  if type(value) in (tuple, list):
    runs = [f"{n} x {one}" if n > 1 else one for n, one in _runs(value)]
    return f"({', '.join(runs)})" if len(runs) <= _MAX_ITEMS else counted(len(value), "item")
  if isinstance(value, Mapping):
    return f"{{{len(value)} names: {clipped(', '.join(map(str, value)))}}}"
  if isinstance(value, str):
    return repr(clipped(value))
  if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
    return repr(value)
  return clipped(repr(value))


def settings_repr(config: Any) -> str:
  """Returns the Python expression of a frozen dataclass of settings, without its defaults.

  It evaluates to an equal object where the classes are imported. A tuple that repeats itself is
  written as a product: `(Layer(),) * 30`.
  """
  parts = []
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if field.default is dataclasses.MISSING or value != field.default:
      parts.append(f"{field.name}={_expression(value)}")
  return f"{type(config).__name__}({', '.join(parts)})"


def clipped(text: str, limit: int = _MAX_TEXT) -> str:
  """Returns a text, or its beginning and end around an ellipsis."""
  if len(text) <= limit:
    return text
  half = (limit - 1) // 2
  return f"{text[:half]}…{text[-half:]}"


def counted(number: int, one: str, several: str = "") -> str:
  """Returns "1 row" or "1,200 rows"."""
  return f"{number:,} {one if number == 1 else several or one + 's'}"


def rounded(number: float) -> str:
  """Returns a large number in three digits: 8_451_200 is "8.45 M"."""
  for size, unit in _UNITS:
    if number >= size:
      return f"{number / size:.3g} {unit}"
  return f"{number:.0f}"


def megabytes(nbytes: int) -> str:
  """Returns "16.9 MB", or kilobytes for what is small."""
  return f"{nbytes / 1e6:,.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:,.1f} kB"


def _runs(values: Sequence[Any]) -> list[tuple[int, str]]:
  runs: list[tuple[int, str]] = []
  for one in map(short, values):
    if runs and runs[-1][1] == one:
      runs[-1] = (runs[-1][0] + 1, one)
    else:
      runs.append((1, one))
  return runs


def _expression(value: Any) -> str:
  if not isinstance(value, tuple) or len(value) < 3:
    return repr(value)
  period = next(p for p in range(1, len(value) + 1) if _repeats(value, p))
  times, rest = divmod(len(value), period)
  if times == 1:
    return _plain(value)
  unit, tail = _plain(value[:period]), _plain(value[len(value) - rest :])
  unit = f"({unit})" if " + " in unit or " * " in unit else unit
  return f"{unit} * {times}" + (f" + {tail}" if rest else "")


def _repeats(value: tuple, period: int) -> bool:
  return all(one == value[i % period] for i, one in enumerate(value))


def _plain(value: tuple) -> str:
  """Returns a tuple as a sum of products: (a,) * 5 + (b,)."""
  runs: list[list[Any]] = []
  for one in value:
    if runs and runs[-1][0] == one:
      runs[-1][1] += 1
    else:
      runs.append([one, 1])
  if all(count == 1 for _, count in runs):
    return repr(value)
  return " + ".join(f"({one!r},)" + (f" * {count}" if count > 1 else "") for one, count in runs)
