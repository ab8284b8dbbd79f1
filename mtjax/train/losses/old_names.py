"""Configs and checkpoints of runs that began before objectives had the names that they have."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mtjax.train.losses.registry import defaults_of

_GROUP = (Mapping, ConfigDict)
# What a checkpoint calls an objective and its settings, where that is not the objective's name.
_IN_CHECKPOINTS = {"s2d": ("next_token", "s2d"), "any_subset": ("any_subset", "masking")}


def identity_names(objective: str) -> tuple[str, str]:
  """Returns what checkpoints call the objective and its settings: as the first ones did."""
  return _IN_CHECKPOINTS.get(objective, (objective, objective))


def with_new_names(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of a config, an old one in the names of today.

  `masking` was a field of every config: the settings of any_subset. A model with exits was trained
  at all of them under the name next_token, which is s2d. Raises ValueError for settings under both
  names, and for a masking that the objective does not read.
  """
  fields = dict(config)
  objective = fields.get("objective")
  if "masking" in fields:
    masking = fields.pop("masking")
    if objective == "any_subset":
      if "any_subset" in fields:
        raise ValueError("the config has any_subset and masking, its older name: keep any_subset")
      fields["any_subset"] = masking
    elif _changed(masking):
      raise ValueError(
        "masking is the older name of any_subset, the settings of that objective, and the config's "
        f"objective is {objective!r}: remove masking"
      )
  model = fields.get("model")
  if objective == "next_token" and isinstance(model, _GROUP) and model.get("exits"):
    fields["objective"] = "s2d"
  return fields


def _changed(masking: Any) -> bool:
  defaults = defaults_of("any_subset")
  if not isinstance(masking, _GROUP):
    return True
  return any(
    name not in defaults or (tuple(value) if isinstance(value, list) else value) != defaults[name]
    for name, value in masking.items()
  )
