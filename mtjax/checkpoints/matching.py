"""What a folder stores against what its config asks for: names, shapes, and a tied head."""

import dataclasses
from collections.abc import Mapping, Sequence

from mtjax.checkpoints import layout
from mtjax.checkpoints.families import Family
from mtjax.checkpoints.layout import Recipe
from mtjax.checkpoints.reading import StoredTensors, Tensor
from mtjax.models import Config

_SHOWN = 6


def match(
  stored: StoredTensors, family: Family, config: Config
) -> tuple[Config, dict[str, Recipe]]:
  """Returns the config that the stored tensors are of, and where each parameter is stored.

  Renames `stored.tensors` to what the family calls them. Of a tied config, one tensor is both the
  embedding's table and the head, whichever of the two names it is stored under. Where both are
  stored and hold other numbers, the files are right and the config is wrong, so the config that is
  returned is untied (transformers 5, PreTrainedModel.tie_weights). Numbers are read for that
  comparison alone, after all names and shapes agree.

  Raises ValueError that names the files unless the tensors are exactly those of the config.
  """
  if len(config.layers) > len(stored.tensors):
    raise ValueError(
      f"config.json has {len(config.layers)} layers, and {stored.source} only "
      f"{len(stored.tensors)} tensors"
    )
  recipes = family.recipes(config)
  stored.tensors = _renamed(stored, layout.stored_shapes(recipes), family)
  table, head = recipes["embedding/table"].pieces[0].name, family.heads[0]
  if config.tied and head in stored.tensors and table not in stored.tensors:
    stored.tensors[table] = stored.tensors.pop(head)
  if not config.tied or head not in stored.tensors:
    _check(stored, layout.stored_shapes(recipes), family)
    return config, recipes
  untied = dataclasses.replace(config, tied=False)
  both = family.recipes(untied)
  _check(stored, layout.stored_shapes(both), family)
  if not layout.same_numbers(stored, table, head):
    return untied, both
  del stored.tensors[head]
  return config, recipes


def listed(names: Sequence[str]) -> str:
  """The first few of `names`, and how many more there are."""
  more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return ", ".join(names[:_SHOWN]) + more


def _renamed(
  stored: StoredTensors, wanted: Mapping[str, tuple[int, ...]], family: Family
) -> dict[str, Tensor]:
  """The stored tensors under the family's first prefix, without those that see images."""
  own = family.prefixes[0]
  # Any of them may be missing, the embedding's table too.
  bases = [name.removeprefix(own) for name in wanted if name.startswith(own)]
  prefix = next(
    (p for p in family.prefixes if any(p + base in stored.tensors for base in bases)), None
  )
  if prefix is None:
    return stored.tensors
  renamed: dict[str, Tensor] = {}
  for name, tensor in stored.tensors.items():
    if name in family.heads:
      new = family.heads[0]
    elif name.startswith(prefix) and name not in wanted:
      new = own + name.removeprefix(prefix)
    elif _is_vision(name):
      continue
    else:
      new = name
    if new in renamed:
      raise ValueError(f"two tensors in {stored.source} are {new}; {name} is the second")
    renamed[new] = tensor
  return renamed


def _is_vision(name: str) -> bool:
  return name.removeprefix("model.").startswith(("vision_tower.", "multi_modal_projector."))


def _check(stored: StoredTensors, wanted: Mapping[str, tuple[int, ...]], family: Family) -> None:
  """ValueError unless the tensors have exactly these names and shapes, and dtypes we can read."""
  found = stored.tensors
  wrong = {
    "missing": [name for name in wanted if name not in found],
    "unexpected": [name for name in found if name not in wanted],
    "misshaped": [
      f"{name} is {list(found[name].shape)} and must be {list(shape)}"
      for name, shape in wanted.items()
      if name in found and found[name].shape != shape
    ],
  }
  if any(wrong.values()):
    parts = [f"{kind}: {listed(names)}" for kind, names in wrong.items() if names]
    raise ValueError(
      f"the tensors in {stored.source} are not those of its config.json ({family.model_type}). "
      + ". ".join(parts)
    )
  for name in wanted:
    stored.dtype(name)
