"""Parameters in a few words: their number, the types of the weights, megabytes."""

import dataclasses

import jax

from mtjax.display.short import megabytes, rounded
from mtjax.models.model import Model, Params, count_parameters

_MIN_SHARE = 0.05  # of the bytes: types with less are not named (norms, biases, scales)


@dataclasses.dataclass(frozen=True)
class WeightsSummary:
  """Facts about parameters. No array is read: leaves need a size and a dtype."""

  parameters: int  # of the network; padding, scales and a second copy of a tied head do not count
  dtypes: tuple[str, ...]  # of the weights, from the type with the most bytes to the fewest
  nbytes: int  # of all arrays

  def __str__(self) -> str:
    types = " and ".join(self.dtypes)
    return f"{rounded(self.parameters)} parameters, {types}, {megabytes(self.nbytes)}"


def summarize_weights(model: Model, params: Params) -> WeightsSummary:
  """Returns the summary of a model's parameters, which may be plain, int8 or packed."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  nbytes: dict[str, int] = {}
  count, is_packed = 0, False
  for path, leaf in leaves:
    name = str(getattr(path[-1], "key", "")) if path else ""
    is_packed |= name == "packed"
    count += 0 if name == "scale" else leaf.size  # only quantized weights have one
    kind = str(leaf.dtype)
    nbytes[kind] = nbytes.get(kind, 0) + leaf.size * leaf.dtype.itemsize
  total = sum(nbytes.values())
  kinds = sorted(nbytes, key=lambda kind: -nbytes[kind])
  return WeightsSummary(
    count_parameters(model.shapes()) if is_packed else count,
    tuple(kind for kind in kinds if nbytes[kind] >= _MIN_SHARE * total),
    total,
  )
