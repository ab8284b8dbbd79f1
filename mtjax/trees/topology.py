"""The shape of a static tree; `mtjax.trees.encodings` has the encodings of other systems."""

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from mtjax.types import TokenTree


@dataclasses.dataclass(frozen=True)
class Topology:
  """A tree of N nodes, parents before their children; node 0 is the root.

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
          f"node {node} has parent {parent}: a parent must stand before its child, so that there "
          "are one root and no cycles"
        )
      if self.rank[node] <= last.get(parent, -1):
        raise ValueError(
          f"node {node} has rank {self.rank[node]}, and the sibling before it has "
          f"{last[parent]}: ranks of siblings must grow"
        )
      last[parent] = self.rank[node]

  @property
  def size(self) -> int:
    """The number of nodes, with the root."""
    return len(self.parent)

  @functools.cached_property
  def depth(self) -> tuple[int, ...]:
    """The distance of each node from the root."""
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
    """The largest depth."""
    return max(self.depth)

  @property
  def breadth(self) -> int:
    """Largest number of children; 1 for a root alone, whose children are all missing."""
    return max((order + 1 for order in self.order[1:]), default=1)

  @property
  def is_chain(self) -> bool:
    """True if no node has more than one child."""
    return self.breadth == 1

  def levels(self) -> list[list[int]]:
    """Returns the nodes of each depth, from the root on."""
    out: list[list[int]] = [[] for _ in range(self.height + 1)]
    for node, depth in enumerate(self.depth):
      out[depth].append(node)
    return out

  def children(self) -> list[list[int]]:
    """Returns the children of each node, in node order."""
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
