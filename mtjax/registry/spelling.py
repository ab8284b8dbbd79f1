"""Names with settings, as command lines and configs spell them: NAME or NAME:setting=value:..."""

import ast
from collections.abc import Sequence
from typing import Any


def split_spelling(text: str) -> tuple[str, dict[str, Any]]:
  """Returns the name and the settings of "threshold:threshold=0.8"; "threshold" has none."""
  name, *settings = text.split(":")
  return name, settings_of(settings)


def settings_of(settings: Sequence[str]) -> dict[str, Any]:
  """Returns {field: value} of "field=value"; what is no number, bool or tuple is text."""
  found = {}
  for field, _, text in (setting.partition("=") for setting in settings):
    try:
      found[field] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      found[field] = text
  return found
