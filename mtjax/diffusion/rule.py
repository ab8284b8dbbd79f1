"""Rules whose settings may differ per row: pytrees, so that another value compiles nothing new."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from mtjax.arguments import integer
from mtjax.sampling.per_row import check_range, per_row

if TYPE_CHECKING:
  PerRow = Any  # what a caller gives, and then, in a pass, the array [B] that `for_rows` made of it
else:
  PerRow = float | Sequence[float] | Shaped[np.ndarray | Array, "*B"]  # one number, or one per row
_STATIC = "static"
_Class = TypeVar("_Class", bound=type)
_Rule = TypeVar("_Rule", bound="PerRowRule")


class Range(NamedTuple):
  """The values that a setting may have."""

  low: float | None = None
  high: float | None = None
  open_low: bool = False

  def check(self, setting: Any, name: str) -> None:
    """Raises ValueError, with the setting's name, for a value out of the range."""
    check_range(np.ravel(setting).tolist(), name, **self._asdict())


PROBABILITY = Range(0.0, 1.0, open_low=True)  # (0, 1]: of a threshold, which 0 would switch off
SHARE = Range(0.0, 1.0)
# Metadata of fields that are no setting per row, and the smallest value of those that are numbers.
_STATIC, _SMALLEST = "static", "smallest"


@dataclasses.dataclass(frozen=True)
class PerRowRule:
  """Base of rules: frozen dataclasses whose fields are numbers, or one number per row.

  A rule is made with numbers, which are checked at once; `for_rows` makes them arrays [B], and with
  those it is an argument of the one compiled program. The class is part of the program, the values
  are not. Rebuilding the pytree checks nothing. Fields made by `static_field`, `size_field` and
  `id_field` are part of the program too, and the same for all rows.
  """

  ranges: ClassVar[dict[str, Range]] = {}

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      smallest, name = field.metadata.get(_SMALLEST), field.name
      if smallest is not None and integer(getattr(self, name), name) < smallest:
        raise ValueError(f"{name} must be at least {smallest}, got {getattr(self, name)}")
    values = {name: getattr(self, name) for name in _names(type(self))}
    # Arrays of JAX may be traced; `for_rows` checks those that are not.
    if not any(isinstance(value, jax.Array) for value in values.values()):
      self.check_values(values)

  def check_values(self, values: Mapping[str, Any]) -> None:
    """Raises ValueError, with the setting's name, for a value out of its range."""
    for name, allowed in self.ranges.items():
      allowed.check(values[name], name)

  def for_rows(self: _Rule, batch: int) -> _Rule:
    """Returns the rule with an array [B] for every setting.

    Raises ValueError as `check_values` does, and for another number of values than rows.
    """
    values = {name: per_row(getattr(self, name), batch, name) for name in _names(type(self))}
    self.check_values(values)
    columns = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    return dataclasses.replace(self, **columns)


def static_field(default: Any) -> Any:
  """Returns a field of a `rule` that is no number: it is hashable, and part of the program."""
  return dataclasses.field(default=default, metadata={_STATIC: True})


def size_field(*, default: int) -> Any:
  """Returns a field of a rule that is a size: a whole number, the same for all rows."""
  return dataclasses.field(default=default, metadata={_STATIC: True, _SMALLEST: 1})


def id_field(*, default: int) -> Any:
  """Returns a field of a rule that is a token, the same for all rows; -1: it is not given."""
  return dataclasses.field(default=default, metadata={_STATIC: True, _SMALLEST: -1})


@dataclass_transform(
  frozen_default=True, field_specifiers=(dataclasses.field, static_field, size_field, id_field)
)
def rule(cls: _Class) -> _Class:
  """Makes a frozen dataclass of settings a pytree of them; a decorator."""
  cls = dataclasses.dataclass(frozen=True)(cls)
  static = [field.name for field in dataclasses.fields(cls) if _STATIC in field.metadata]

  def with_keys(tree):
    leaves = [(jax.tree_util.GetAttrKey(n), getattr(tree, n)) for n in _names(cls)]
    return leaves, tuple(getattr(tree, name) for name in static)

  def rebuild(fixed, values):
    # Not by the constructor: JAX's values may be anything, an axis or a shape among them.
    tree = object.__new__(cls)
    for name, value in zip([*_names(cls), *static], [*values, *fixed], strict=True):
      object.__setattr__(tree, name, value)
    return tree

  jax.tree_util.register_pytree_with_keys(cls, with_keys, rebuild)
  return cls


def _names(cls) -> list[str]:
  """Returns the names of the fields that may differ per row."""
  return [field.name for field in dataclasses.fields(cls) if _STATIC not in field.metadata]
