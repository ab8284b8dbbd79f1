"""Entries that make a fill method from settings, for the rows of `mtjax.registry.methods`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mtjax.anysubset import FillMethod
from mtjax.registry.drafters import check_settings, defaults

_KINDS: dict[type, tuple[Any, str]] = {
  bool: (bool, "True or False"),
  int: (int, "a whole number"),
  float: ((int, float), "a number"),
  str: (str, "a name"),
}


@dataclasses.dataclass(frozen=True)
class FillEntry:
  """A fill method by name: its settings with their defaults, and the class that it is made of.

  `make` is the method's class, whose fields all have defaults. `window` is the name of the field
  that --window sets, the largest number of entries that a pass decides; None: a pass decides one.
  """

  make: Callable[..., FillMethod]
  window: str | None = "window"

  def __post_init__(self):
    if self.window is not None and self.window not in self.settings:
      raise ValueError(
        f"`window` is {self.window!r}, and this fill method has no such setting with a default: it "
        f"has {', '.join(self.settings) or 'none'}"
      )

  @property
  def settings(self) -> dict[str, Any]:
    """The settings with the defaults in the method's own signature."""
    return defaults(self.make)

  def __call__(self, **settings: Any) -> FillMethod:
    """Returns the method. Raises ValueError for a setting that it lacks or of another kind."""
    self._check(settings)
    return self.make(**settings)

  def of_window(self, window: int) -> FillMethod:
    """Returns the method with this window if it has one, and with its defaults otherwise."""
    return self(**({} if self.window is None else {self.window: window}))

  def _check(self, settings: Mapping[str, Any]) -> None:
    check_settings("fill method", settings, self.settings)
    for name, value in settings.items():
      kind, words = _KINDS.get(type(self.settings[name]), (object, "anything"))
      # True is an int in Python, but no whole number to users.
      if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} must be {words}, got {value!r}")
