"""The best trees where any candidate of a node may be drafted without the others."""

import dataclasses
import functools
import heapq

import numpy as np
from jaxtyping import Float

from mtjax.trees import Topology
from mtjax.trees.encodings import Path, from_paths
from mtjax.tuning.shapes.rated import Rates, check_size


@dataclasses.dataclass(frozen=True)
class AnyRanks:
  """The best trees of all sizes: the nodes whose paths are the most probable."""

  paths: tuple[Path, ...]  # of the drafts, from the most probable on; parents before children
  expected: Float[np.ndarray, " M"]

  def tree(self, nodes: int) -> Topology:
    """Returns the best tree of at most `nodes` nodes, the root among them."""
    return _topology(self.paths[: max(nodes, 1) - 1])


def best_of_any_ranks(rates: Rates, max_nodes: int, *, height: int | None = None) -> AnyRanks:
  """Returns the best trees of up to `max_nodes` nodes for drafts that are chosen by a rule.

  A tree is worth sum over its nodes v of P(v), where P(v) is the product of the rates along the
  path. P of a child is at most that of its parent, so the n most probable paths form a tree, and no
  tree of n nodes is worth more (Medusa 2401.10774, section 2.3.3; EAGLE-1; PPD 2405.18628). This
  needs that the rate of a candidate does not depend on which others are drafted, as in
  `mtjax.verify` with candidates by a rule (scheme DELTA); rates need not fall with rank. Equal
  paths: the one that was reached first. For sampled siblings use `best_in_order`.

  rates: see `mtjax.tuning.shapes.rate`. height: the largest depth, by default that of the rates.
  Raises ValueError for no node and for a height without rates.
  """
  height = check_size(rates, max_nodes, height)
  ranks = np.argsort(-rates, axis=1, kind="stable")
  falling = np.take_along_axis(rates, ranks, axis=1)
  reached, paths, values = 0, [], [1.0]
  heap: list[tuple[float, int, Path, int, float]] = []

  def push(above: Path, place: int, value: float) -> None:
    """Offers the child of `place` by falling rate; `value` is P of its parent."""
    nonlocal reached
    depth = len(above)
    if depth < height and place < rates.shape[1] and (p := value * falling[depth, place]) > 0:
      heapq.heappush(heap, (-p, reached, above, place, value))
      reached += 1

  push((), 0, 1.0)
  while heap and len(values) < max_nodes:
    negative, _, above, place, value = heapq.heappop(heap)
    path = (*above, int(ranks[len(above), place]))
    paths.append(path)
    values.append(-negative)
    push(path, 0, -negative)
    push(above, place + 1, value)
  values = np.pad(np.array([0.0, *values]), (0, max_nodes - len(values)))
  return AnyRanks(tuple(paths), np.cumsum(values))


@functools.lru_cache(maxsize=1024)
def _topology(paths: tuple[Path, ...]) -> Topology:
  return from_paths(paths)
