"""The best trees where a child is tried only after all siblings before it: Sequoia's program."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from mtjax.trees import Topology
from mtjax.trees.encodings import Path, from_paths
from mtjax.tuning.shapes.rated import Rates, check_size


@dataclasses.dataclass(frozen=True)
class InOrder:
  """The best trees of all sizes, with the choices that lead to them."""

  expected: Float[np.ndarray, " M"]
  # At index [d, b, m]: the value of a subtree with m nodes whose root has depth d and b children,
  # and how many of the nodes belong to the last child.
  value: Float[np.ndarray, "D C M"]
  last: Int[np.ndarray, "D C M"]

  def tree(self, nodes: int) -> Topology:
    """Returns the smallest of the best trees of at most `nodes` nodes, the root among them."""
    best = self.value[0].max(axis=0)[: max(nodes, 1) + 1]
    return from_paths(self._paths((), int(np.argmax(best))))

  def _paths(self, above: Path, nodes: int) -> list[Path]:
    depth, out = len(above), []
    for place in range(int(np.argmax(self.value[depth, :, nodes])) - 1, -1, -1):
      below = int(self.last[depth, place + 1, nodes])
      path = (*above, place)
      out += [path, *self._paths(path, below)]
      nodes -= below
    return out


def best_in_order(rates: Rates, max_nodes: int, *, height: int | None = None) -> InOrder:
  """Returns the best trees of up to `max_nodes` nodes for siblings that are tried in order.

  This is the dynamic program of Sequoia (2402.12374, section 3.1), with one row of
  rates per depth. `T[d][m][b]` is the value of a subtree of m nodes whose root has depth d and b
  children:

      T[d][1][0] = 1
      T[d][m][b] = max over k of T[d][m - k][b - 1] + rates[d][b - 1] best[d + 1][k]

  where `best[d][m]` is the maximum over b. It is exact also where rates do not fall with the place
  among siblings, and where the tree of the most probable paths is worse. O(N^2 H K) for N nodes.

  rates: see `mtjax.tuning.shapes.rate`; rank r is the place among siblings. height: the largest
  depth. Raises ValueError for no node and for a height without rates.
  """
  height = check_size(rates, max_nodes, height)
  shape = (height + 1, rates.shape[1] + 1, max_nodes + 1)
  value, last = np.full(shape, -np.inf), np.zeros(shape, np.int64)
  value[:, 0, 1] = 1.0
  m = np.arange(max_nodes + 1)
  # [m, k]: the nodes that are left for the first children when the last child owns k of m.
  left = m[:, None] - m
  possible = (left >= 1) & (m >= 1)
  for depth in range(height - 1, -1, -1):
    best = value[depth + 1].max(axis=0)
    known = np.isfinite(best)
    for count, rate in enumerate(rates[depth], 1):
      gain = np.where(known, rate * np.where(known, best, 0.0), -np.inf)
      split = np.where(
        possible, value[depth, count - 1][np.where(possible, left, 0)] + gain, -np.inf
      )
      last[depth, count] = np.argmax(split, axis=1)
      value[depth, count] = np.max(split, axis=1)
  expected = np.maximum.accumulate(np.maximum(value[0].max(axis=0), 0.0))
  return InOrder(expected, value, last)
