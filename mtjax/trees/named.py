"""Tree shapes by the names that configs use."""

from collections.abc import Sequence

from mtjax.trees.published import EAGLE_25, MEDUSA_63
from mtjax.trees.topology import Topology, k_ary

PUBLISHED = {"medusa_63": MEDUSA_63, "eagle_25": EAGLE_25}


def get_topology(shape: str | Sequence[int]) -> Topology:
  """Returns "medusa_63", "eagle_25", or children by depth: (4, 2, 1); ValueError for others."""
  if not isinstance(shape, str) and len(shape) == 1 and isinstance(shape[0], str):
    shape = shape[0]  # a command line passes a name so
  if isinstance(shape, str):
    if shape not in PUBLISHED:
      raise ValueError(
        f"there is no tree {shape!r}: give one of {', '.join(PUBLISHED)}, or the number of "
        "children at each depth, as (4, 2, 1)"
      )
    return PUBLISHED[shape]
  return k_ary(tuple(shape))
