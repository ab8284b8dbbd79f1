"""Matches the tensors of a folder with those of its config: names, shapes, and a tied head."""

import dataclasses
from collections.abc import Mapping, Sequence

from mtjax.checkpoints import layout
from mtjax.checkpoints.families import Family
from mtjax.checkpoints.layout import Recipe
from mtjax.checkpoints.reading import Tensor, TensorSource
from mtjax.models import Config

_SHOWN = 6


def match(stored: TensorSource, family: Family, config: Config) -> tuple[Config, dict[str, Recipe]]:
  """Returns the config that fits the stored tensors, and where each parameter is stored.

  Renames `stored.tensors` to the family's names. In a tied config, one tensor is both the
  embedding's table and the head, stored under either name. If both are stored with different
  numbers, the files are right and the config is wrong, so the returned config is untied
  (transformers 5, PreTrainedModel.tie_weights). Numbers are read only for this comparison, after
  all names and shapes agree.

  Raises ValueError that names the files unless the tensors are exactly those of the config.
  """
  if len(config.layers) > len(stored.tensors):
    raise ValueError(
      f"{stored.described_by} has {len(config.layers)} layers, but {stored.source} has only "
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
  """Returns the first few of `names`, and the number of the others."""
  more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return ", ".join(names[:_SHOWN]) + more


def _renamed(
  stored: TensorSource, expected: Mapping[str, tuple[int, ...]], family: Family
) -> dict[str, Tensor]:
  """Returns the stored tensors under the family's first prefix, without those for images."""
  first = family.prefixes[0]
  # Any tensor may be missing, even the embedding's table.
  bases = [name.removeprefix(first) for name in expected if name.startswith(first)]
  prefix = next(
    (p for p in family.prefixes if any(p + base in stored.tensors for base in bases)), None
  )
  if prefix is None:
    return stored.tensors
  renamed: dict[str, Tensor] = {}
  for name, tensor in stored.tensors.items():
    if name in family.heads:
      new = family.heads[0]
    elif name.startswith(prefix) and name not in expected:
      new = first + name.removeprefix(prefix)
    elif _is_vision(name) or name in family.ignored:
      continue
    else:
      new = name
    if new in renamed:
      raise ValueError(f"two tensors in {stored.source} are {new}; {name} is the second")
    renamed[new] = tensor
  return renamed


def _is_vision(name: str) -> bool:
  part = name.removeprefix("model.").removeprefix("encoder.")
  return part.startswith(("vision_tower.", "multi_modal_projector.", "embed_vision."))


def _check(stored: TensorSource, expected: Mapping[str, tuple[int, ...]], family: Family) -> None:
  """Raises ValueError unless the tensors have exactly these names and shapes, and known dtypes."""
  tensors = stored.tensors
  wrong = {
    "missing": [name for name in expected if name not in tensors],
    "unexpected": [name for name in tensors if name not in expected],
    "misshaped": [
      f"{name} is {list(tensors[name].shape)} and must be {list(shape)}"
      for name, shape in expected.items()
      if name in tensors and tensors[name].shape != shape
    ],
  }
  if any(wrong.values()):
    parts = [f"{kind}: {listed(names)}" for kind, names in wrong.items() if names]
    raise ValueError(
      f"the tensors in {stored.source} are not those of its {stored.described_by} "
      f"({family.model_type}). " + ". ".join(parts)
    )
  for name in expected:
    stored.dtype(name)
