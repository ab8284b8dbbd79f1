"""The settings of the rows of a batch that is denoised: those of the config, or a row's own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.cli.prompts import ROW_FIELDS, PromptRow
from mtjax.sampling.logits import Sampling, row_keys, seed_key

SAMPLING = tuple(name for name in ROW_FIELDS if name != "seed")


def check_rows(rows: Sequence[PromptRow]) -> None:
  """Raises ValueError, with the line's number, for a setting of a row that is out of its range."""
  for row in rows:
    numbers = {name: value for name, value in row.settings.items() if name in SAMPLING}
    try:
      for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
          raise ValueError(f"{name} must be a number, got {value!r}")
        if not math.isfinite(value):
          raise ValueError(f"{name} must be finite, got {value!r}")
      Sampling(**numbers).rules(1, 1)
      seed_key(row.settings.get("seed", 0))
    except (ValueError, OverflowError) as error:
      raise ValueError(f"{row.where}: {error}") from None


def row_settings(config: Mapping[str, Any], rows: Sequence[PromptRow]) -> dict[str, Any]:
  """Returns `sampling` and `key` of `TextModel.denoise`: of the config, or of a row's own line.

  A row with a seed has the text that it would have alone with this seed, wherever it stands. The
  others have the text that they have beside rows without seeds.
  """

  def column(name: str) -> Any:
    if not any(name in row.settings for row in rows):
      return config[name]
    return [row.settings.get(name, config[name]) for row in rows]

  keys = row_keys(config["seed"], len(rows))
  for i, row in enumerate(rows):
    if "seed" in row.settings:
      keys = keys.at[i].set(row_keys([row.settings["seed"]], 1)[0])
  return dict(sampling=Sampling(**{name: column(name) for name in SAMPLING}), key=keys)
