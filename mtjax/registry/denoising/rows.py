"""One row of the tables of denoising: a rule of a pass or a cache, by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtjax.registry.drafters import check_settings, defaults
from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class RuleRow:
  """A rule by name: its class, what it does in words, its paper, and what shows and proves it.

  `make` is the rule's class, whose fields all have defaults; `fixed` are fields that the name
  decides and no setting changes. Paths are relative to the repository. Exactness, its reason and
  the file are those of the class.
  """

  make: type[Any]
  title: str
  paper: str
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  config: str = "configs/decode/llada.py"  # or any other one, with --config.denoise.ROLE=NAME
  test: str = "tests/diffusion/test_policy_distributions.py"

  @property
  def settings(self) -> dict[str, Any]:
    """The settings with the defaults in the rule's own signature."""
    return {name: value for name, value in defaults(self.make).items() if name not in self.fixed}

  @property
  def file(self) -> str:
    """The file of the class."""
    return f"{self.make.__module__.replace('.', '/')}.py"

  @property
  def exactness(self) -> Exactness:
    """What the rule keeps with its defaults."""
    return self().exactness

  @property
  def reason(self) -> str:
    """Why it is not exact; empty where it is."""
    return self().reason

  def __call__(self, **settings: Any) -> Any:
    """Returns the rule. Raises ValueError for a setting that it lacks or that is no number."""
    check_settings(f"rule, {self.make.__name__},", settings, self.settings)
    for name, value in settings.items():
      default = self.settings[name]
      # The class checks words and None.
      if not isinstance(default, str) and (value is not None or default is not None):
        check_numbers(value, name)
    return self.make(**self.fixed, **settings)


def check_numbers(value: Any, name: str) -> None:
  """Raises ValueError, with the setting's name, for anything but a number or one per row."""
  try:
    kind = np.asarray(value).dtype.kind
  except ValueError:  # rows of different lengths
    kind = "O"
  # True is an int in Python, but no number to users.
  if kind not in "iuf":
    raise ValueError(f"{name} must be a number, or one per row, got {value!r}")
