"""The shape of a static tree, and the encodings of it that other systems use."""

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from mtjax.types import TokenTree

Path = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Topology:
  """N nodes in an order in which parents stand before their children; node 0 is the root.

  `rank[n]` says which of its parent's candidates node n is (0: the most probable). Siblings have
  growing ranks in node order, so rank order is sampling order. Hashable; holds no arrays. Raises
  ValueError for anything else than one tree in such an order.
  """

  parent: tuple[int, ...]  # -1 for the root
  rank: tuple[int, ...]  # 0 for the root

  def __post_init__(self):
    if not self.parent or self.parent[0] != -1:
      raise ValueError(f"node 0 must be the root, with parent -1: got parents {self.parent[:4]}")
    if len(self.rank) != len(self.parent):
      raise ValueError(f"{len(self.rank)} ranks for {len(self.parent)} nodes")
    last: dict[int, int] = {}
    for node, parent in enumerate(self.parent[1:], 1):
      if not 0 <= parent < node:
        raise ValueError(
          f"node {node} has parent {parent}; a parent must stand before its child (no cycles, one "
          "root)"
        )
      if self.rank[node] <= last.get(parent, -1):
        raise ValueError(
          f"node {node} has rank {self.rank[node]}, its elder sibling {last[parent]}: ranks of "
          "siblings must grow"
        )
      last[parent] = self.rank[node]

  @property
  def size(self) -> int:
    return len(self.parent)

  @functools.cached_property
  def depth(self) -> tuple[int, ...]:
    out = [0]
    for parent in self.parent[1:]:
      out.append(out[parent] + 1)
    return tuple(out)

  @functools.cached_property
  def order(self) -> tuple[int, ...]:
    """Place of each node among its siblings."""
    count: dict[int, int] = {}
    out = []
    for parent in self.parent:
      out.append(count.get(parent, 0))
      count[parent] = out[-1] + 1
    return tuple(out)

  @property
  def height(self) -> int:
    return max(self.depth)

  @property
  def breadth(self) -> int:
    """Largest number of children; 1 for a root alone, whose children are all missing."""
    return max((order + 1 for order in self.order[1:]), default=1)

  @property
  def is_chain(self) -> bool:
    return self.breadth == 1

  def levels(self) -> list[list[int]]:
    """Returns the nodes of each depth, from the root on."""
    out: list[list[int]] = [[] for _ in range(self.height + 1)]
    for node, depth in enumerate(self.depth):
      out[depth].append(node)
    return out

  def children(self) -> list[list[int]]:
    out: list[list[int]] = [[] for _ in self.parent]
    for node, parent in enumerate(self.parent[1:], 1):
      out[parent].append(node)
    return out

  def tree(self, token: Int[Array, "B N"], valid: Bool[Array, "B N"] | None = None) -> TokenTree:
    """Returns this shape with tokens. Raises ValueError for another number of tokens."""
    batch, size = token.shape
    if size != self.size:
      raise ValueError(f"{size} tokens per row for a tree of {self.size} nodes")

    def rows(values):
      return jnp.broadcast_to(jnp.asarray(values, jnp.int32), (batch, size))

    return TokenTree(
      token=token,
      parent=rows(self.parent),
      depth=rows(self.depth),
      order=rows(self.order),
      valid=jnp.ones((batch, size), bool) if valid is None else valid,
      height=self.height,
      breadth=self.breadth,
    )

  # What other systems write.

  @classmethod
  def from_paths(cls, paths: Sequence[Sequence[int]]) -> "Topology":
    """Reads the lists of Medusa and EAGLE: a node is its path of ranks from the root, [0, 2] say.

    Nodes are ordered by depth, then path. Raises ValueError when a path lacks its prefix, is
    empty or comes twice.
    """
    wanted = sorted((tuple(path) for path in paths), key=lambda path: (len(path), path))
    index: dict[Path, int] = {(): 0}
    parent, rank = [-1], [0]
    for path in wanted:
      if not path or path in index:
        raise ValueError(f"path {list(path)} is {'given twice' if path else 'the root itself'}")
      if path[:-1] not in index:
        raise ValueError(f"path {list(path)} needs its prefix {list(path[:-1])} in the list")
      parent.append(index[path[:-1]])
      rank.append(path[-1])
      index[path] = len(parent) - 1
    return cls(tuple(parent), tuple(rank))

  def paths(self) -> list[list[int]]:
    """Returns the list that `from_paths` takes, in node order, without the root."""
    out: list[list[int]] = [[]]
    for parent, rank in zip(self.parent[1:], self.rank[1:], strict=True):
      out.append([*out[parent], rank])
    return out[1:]

  def ancestors(self) -> Bool[np.ndarray, "N N"]:
    """Returns [i, j]: j is i or an ancestor of i. The mask of tree attention."""
    out = np.eye(self.size, dtype=bool)
    for node, parent in enumerate(self.parent[1:], 1):
      out[node] |= out[parent]
    return out

  @classmethod
  def from_ancestors(cls, mask: Bool[np.ndarray, "N N"]) -> "Topology":
    """Reads an ancestor mask; siblings rank in node order. ValueError if it is not a tree's."""
    mask = np.asarray(mask, bool)
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
      raise ValueError(f"an ancestor mask is [N, N], got {mask.shape}")
    depth = mask.sum(axis=1) - 1
    parent = [-1]
    for node in range(1, len(mask)):
      above = [int(j) for j in np.flatnonzero(mask[node]) if depth[j] == depth[node] - 1]
      parent.append(above[0] if len(above) == 1 else -2)
    out = cls.from_parents(parent)
    if not np.array_equal(out.ancestors(), mask):
      raise ValueError("the mask is not that of a tree in parent-first order")
    return out

  @classmethod
  def from_parents(cls, parent: Sequence[int]) -> "Topology":
    """Reads a parent array; siblings rank in node order."""
    count: dict[int, int] = {}
    rank = []
    for above in parent:
      rank.append(count.get(above, 0))
      count[above] = rank[-1] + 1
    return cls(tuple(int(p) for p in parent), tuple(rank))

  def siblings(self) -> tuple[list[int], list[int]]:
    """Returns first child and next sibling of every node, -1 for none (SGLang's encoding)."""
    first, following = [-1] * self.size, [-1] * self.size
    for kids in self.children():
      for one, other in zip(kids, kids[1:], strict=False):
        following[one] = other
    for node, kids in enumerate(self.children()):
      first[node] = kids[0] if kids else -1
    return first, following

  @classmethod
  def from_siblings(cls, first: Sequence[int], following: Sequence[int]) -> "Topology":
    """Reads first children and next siblings."""
    parent = [-1] * len(first)
    for node, child in enumerate(first):
      seen = 0
      while child != -1:
        if not 0 <= child < len(first) or seen > len(first):
          raise ValueError(
            f"the siblings of node {node}'s children run in a circle or out of range"
          )
        parent[child] = node
        child, seen = following[child], seen + 1
    return cls.from_parents(parent)

  def retrieve_indices(self) -> Int[np.ndarray, "leaves P"]:
    """Returns node ids of each root-to-leaf path, padded with -1 (Medusa's encoding)."""
    kids = self.children()
    out = []
    for leaf in (node for node in range(self.size) if not kids[node]):
      path = []
      node = leaf
      while node != -1:
        path.append(node)
        node = self.parent[node]
      out.append(path[::-1] + [-1] * (self.height + 1 - len(path)))
    return np.array(out, np.int32)


def chain(length: int) -> Topology:
  """Returns the root and `length` drafts in a chain. Raises ValueError for a length below 0."""
  if length < 0:
    raise ValueError(f"a chain holds at least 0 drafts, got {length}")
  return Topology(tuple(range(-1, length)), (0,) * (length + 1))


def k_ary(branching: Sequence[int]) -> Topology:
  """Returns the tree with branching[d] children per node of depth d: (3, 2) has 1 + 3 + 6 nodes."""
  if any(count < 1 for count in branching):
    raise ValueError(f"every level needs at least one child per node, got {tuple(branching)}")
  parent, rank, level = [-1], [0], [0]
  for count in branching:
    following = []
    for node in level:
      for place in range(count):
        following.append(len(parent))
        parent.append(node)
        rank.append(place)
    level = following
  return Topology(tuple(parent), tuple(rank))
