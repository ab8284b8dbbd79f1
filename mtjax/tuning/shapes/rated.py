"""What a tree of drafts is worth under rates of acceptance."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from mtjax.trees import Topology

Rates = Float[np.ndarray, "H K"]


@runtime_checkable
class BestTrees(Protocol):
  """The best trees of all sizes up to a largest one, under one table of rates."""

  @property
  def expected(self) -> Float[np.ndarray, " M"]:
    """Expected tokens per round of the best tree of at most n nodes, root and bonus included.

    Index n, from 1 on; index 0 is 0.
    """
    ...

  def tree(self, nodes: int) -> Topology:
    """Returns the best tree of at most `nodes` nodes; it has fewer where more are worth nothing."""
    ...


@dataclasses.dataclass(frozen=True)
class RatedTree:
  """A tree with the probability that each of its nodes is accepted."""

  topology: Topology
  reach: tuple[float, ...]  # 1 for the root, which stands for the token that follows the drafts

  @property
  def expected_tokens(self) -> float:
    """Expected tokens per round, the one after the accepted drafts included."""
    return float(sum(self.reach))


def rate(topology: Topology, rates: Rates) -> RatedTree:
  """Returns the tree with the probability of each node's path.

  rates[d, r]: P(the child of rank r is accepted | its parent, at depth d, was). For candidates that
  are chosen by a rule, r is the rank among all candidates. Where children are sampled, r is the
  place among the siblings, and the rate says that the earlier siblings were refused and this one
  was accepted. A depth or rank without a rate is never accepted. Raises ValueError for rates that
  are none.
  """
  check_rates(rates)
  return RatedTree(topology, tuple(reached(topology, rates)))


def reached(topology: Topology, rates: Float[np.ndarray, "*G H K"]) -> list[Any]:
  """Returns the probability of each node's path, for one table of rates or for several at once.

  They are numbers for one table [H, K], and arrays [G] for several. Tables are not checked; `rate`
  says what they mean.
  """
  height, breadth = rates.shape[-2:]
  single = rates.ndim == 2
  # Python's numbers are faster than arrays of one number.
  each: Any = rates.tolist() if single else np.moveaxis(rates, (-2, -1), (0, 1))
  root: Any = 1.0 if single else np.ones(rates.shape[:-2])
  reach = [root]
  for node in range(1, topology.size):
    parent, rank, depth = topology.parent[node], topology.rank[node], topology.depth[node]
    known = depth <= height and rank < breadth
    reach.append(reach[parent] * each[depth - 1][rank] if known else 0.0 * reach[0])
  return reach


def check_rates(rates: Rates) -> None:
  """Raises ValueError unless rates are [H, K] probabilities of which siblings share at most 1."""
  if rates.ndim != 2 or rates.shape[1] < 1:
    raise ValueError(f"rates must be [depths, ranks], got an array of shape {rates.shape}")
  if not np.all((rates >= 0) & (rates <= 1)):
    raise ValueError(f"rates must be numbers from 0 to 1, got {rates.min()} to {rates.max()}")
  total = rates.sum(axis=1)
  if np.any(total > 1 + 1e-6):
    depth = int(np.argmax(total))
    raise ValueError(
      f"at most one child of a node is accepted, so the rates of a depth add up to at most 1: at "
      f"depth {depth + 1} they add up to {total[depth]:.4f}. Rates must not be conditional on the "
      "refusal of earlier siblings"
    )


def check_size(rates: Rates, nodes: int, height: int | None) -> int:
  """Returns the height, by default that of the rates; raises ValueError for what cannot be."""
  check_rates(rates)
  if nodes < 1:
    raise ValueError(f"a tree has at least one node, its root: got {nodes}")
  if height is None:
    return rates.shape[0]
  if not 0 <= height <= rates.shape[0]:
    raise ValueError(f"the rates reach down to depth {rates.shape[0]}, got height {height}")
  return height
