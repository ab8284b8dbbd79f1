"""Shapes of drafts as data."""

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int, PyTree

from mtjax.draft.protocol import Drafter
from mtjax.trees import Topology


class Shape(struct.PyTreeNode):
  """A `Topology` of at most N nodes as arrays; the same for all rows.

  Nodes are ordered by depth. Nodes that are not `there` follow all others, with the root as parent.
  """

  parent: Int[Array, " N"]  # -1 for the root
  rank: Int[Array, " N"]
  order: Int[Array, " N"]
  depth: Int[Array, " N"]
  there: Bool[Array, " N"]

  @property
  def height(self) -> Int[Array, ""]:
    """The largest depth of a node that is there."""
    return jnp.max(jnp.where(self.there, self.depth, 0))

  @classmethod
  def of(cls, topology: Topology, size: int) -> "Shape":
    """Returns the arrays (of numpy) of a topology, with `size` nodes.

    Raises ValueError for a topology of more nodes.
    """
    if topology.size > size:
      raise ValueError(f"a tree of {topology.size} nodes is no shape of at most {size} nodes")
    by_level = [node for level in topology.levels() for node in level]
    new = {-1: -1} | {node: place for place, node in enumerate(by_level)}
    out: Any = np.zeros((4, size), np.int32)
    for place, node in enumerate(by_level):
      parent = new[topology.parent[node]]
      out[:, place] = parent, topology.rank[node], topology.order[node], topology.depth[node]
    there: Any = np.arange(size) < topology.size
    return cls(*out, there=there)


@runtime_checkable
class ShapedDrafter(Drafter, Protocol):
  """A drafter whose state holds the shape that it drafts; any shape within its size may follow."""

  @property
  def size(self) -> int:
    """Largest number of nodes, the root among them; static."""
    ...

  def start_unread(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> PyTree:
    """Returns what `start` does, before the draft model has read the prompts: `propose` will."""
    ...

  def with_shape(self, state: PyTree, shape: Shape) -> PyTree:
    """Returns the state that drafts a shape of `size` nodes, from the next round on."""
    ...
