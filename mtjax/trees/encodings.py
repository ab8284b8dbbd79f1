"""Encodings of other systems for the shape of a static tree: from them to a `Topology`, and back.

The two functions of a pair are each other's inverse, up to the order of nodes and the ranks, which
some encodings do not hold.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from mtjax.trees.topology import Topology

Path = tuple[int, ...]


def from_paths(paths: Sequence[Sequence[int]]) -> Topology:
  """Returns the shape of Medusa's and EAGLE's lists, where a node is its path of ranks, as [0, 2].

  Nodes are ordered by depth, then path. Raises ValueError when a path lacks its prefix, is
  empty or comes twice.
  """
  in_order = sorted((tuple(path) for path in paths), key=lambda path: (len(path), path))
  index: dict[Path, int] = {(): 0}
  parent, rank = [-1], [0]
  for path in in_order:
    if not path or path in index:
      reason = "is in the list twice" if path else "is the root, which the list leaves out"
      raise ValueError(f"path {list(path)} {reason}")
    if path[:-1] not in index:
      raise ValueError(f"path {list(path)} needs its prefix {list(path[:-1])} in the list")
    parent.append(index[path[:-1]])
    rank.append(path[-1])
    index[path] = len(parent) - 1
  return Topology(tuple(parent), tuple(rank))


def to_paths(topology: Topology) -> list[list[int]]:
  """Returns the list that `from_paths` takes, in node order, without the root."""
  out: list[list[int]] = [[]]
  for parent, rank in zip(topology.parent[1:], topology.rank[1:], strict=True):
    out.append([*out[parent], rank])
  return out[1:]


def from_parents(parent: Sequence[int]) -> Topology:
  """Returns the shape of a parent array; siblings rank in node order.

  Raises ValueError for anything but a tree in parent-first order, as `Topology` does.
  """
  count: dict[int, int] = {}
  rank = []
  for above in parent:
    rank.append(count.get(above, 0))
    count[above] = rank[-1] + 1
  return Topology(tuple(int(p) for p in parent), tuple(rank))


def from_ancestors(mask: Bool[np.ndarray, "N N"]) -> Topology:
  """Returns the shape of an ancestor mask; siblings rank in node order.

  Raises ValueError for a mask that is not a tree's, and for a tree that is not in parent-first
  order.
  """
  mask = np.asarray(mask, bool)
  if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
    raise ValueError(f"an ancestor mask is [N, N], got {mask.shape}")
  depth = mask.sum(axis=1) - 1
  parent = [-1]
  for node in range(1, len(mask)):
    above = [int(j) for j in np.flatnonzero(mask[node]) if depth[j] == depth[node] - 1]
    parent.append(above[0] if len(above) == 1 else -2)
  out = from_parents(parent)
  if not np.array_equal(to_ancestors(out), mask):
    raise ValueError("the mask is not the ancestor mask of a tree in parent-first order")
  return out


def to_ancestors(topology: Topology) -> Bool[np.ndarray, "N N"]:
  """Returns the mask of tree attention: [i, j] is true where j is i or an ancestor of i."""
  out = np.eye(topology.size, dtype=bool)
  for node, parent in enumerate(topology.parent[1:], 1):
    out[node] |= out[parent]
  return out


def from_siblings(first: Sequence[int], following: Sequence[int]) -> Topology:
  """Returns the shape of SGLang's encoding: the first child and the next sibling of every node.

  -1 means that there is none. Raises ValueError for siblings in a circle or out of range.
  """
  parent = [-1] * len(first)
  for node, child in enumerate(first):
    seen = 0
    while child != -1:
      if not 0 <= child < len(first) or seen > len(first):
        raise ValueError(f"the siblings of node {node}'s children run in a circle or out of range")
      parent[child] = node
      child, seen = following[child], seen + 1
  return from_parents(parent)


def to_siblings(topology: Topology) -> tuple[list[int], list[int]]:
  """Returns the first child and the next sibling of every node, as `from_siblings` takes them."""
  children = topology.children()
  first = [kids[0] if kids else -1 for kids in children]
  following = [-1] * topology.size
  for kids in children:
    for one, other in zip(kids, kids[1:], strict=False):
      following[one] = other
  return first, following


def to_retrieve_indices(topology: Topology) -> Int[np.ndarray, "leaves P"]:
  """Returns the nodes of each root-to-leaf path, padded with -1 (Medusa's encoding)."""
  children = topology.children()
  out = []
  for leaf in (node for node in range(topology.size) if not children[node]):
    path = []
    node = leaf
    while node != -1:
      path.append(node)
      node = topology.parent[node]
    out.append(path[::-1] + [-1] * (topology.height + 1 - len(path)))
  return np.array(out, np.int32)
