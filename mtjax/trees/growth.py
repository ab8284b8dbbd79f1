"""Trees that grow where a draft is expected to be accepted, one sampled child at a time."""

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from mtjax.types import TokenTree


class Growth(struct.PyTreeNode):
  """A tree of one row while it grows; N nodes, of which the later ones are still missing.

  Every node has one slot, for its next child. When the distribution of a node becomes known, C
  possible children are sampled from it, in order; a child counts from when it is added, not before.
  """

  token: Int[Array, " N"]
  parent: Int[Array, " N"]
  depth: Int[Array, " N"]
  order: Int[Array, " N"]
  valid: Bool[Array, " N"]
  reach: Float[Array, " N"]  # the drafter's estimate of the chance that a node is accepted
  value: Float[Array, " N"]  # its estimate that the slot's next child is tried; 0: no slot
  children: Int[Array, " N"]  # number of children added so far
  candidates: Int[Array, "N C"]  # children as they were sampled, of nodes with a distribution
  share: Float[Array, "N C"]  # `shares` of the candidates

  @classmethod
  def plant(
    cls, root: Int[Array, ""], size: int, breadth: int, dtype: DTypeLike = jnp.float32
  ) -> "Growth":
    """Returns a tree of `size` nodes that holds the root alone, without its distribution."""
    nothing = jnp.zeros((size,), jnp.int32)
    value = jnp.zeros((size,), dtype)
    return cls(
      token=nothing.at[0].set(root),
      parent=nothing.at[0].set(-1),
      depth=nothing,
      order=nothing,
      valid=nothing.at[0].set(1) > 0,
      reach=value.at[0].set(1),
      value=value,
      children=nothing,
      candidates=jnp.zeros((size, breadth), jnp.int32),
      share=jnp.zeros((size, breadth), dtype),
    )

  def open(
    self, node: int, candidates: Int[Array, "M C"], share: Float[Array, "M C"], height: int
  ) -> "Growth":
    """Returns the tree with slots at nodes node, ..., node + M - 1, but not at depth `height`."""
    here = slice(node, node + candidates.shape[0])
    may = self.valid[here] & (self.depth[here] < height) & (share[:, 0] > 0)
    return self.replace(
      value=self.value.at[here].set(jnp.where(may, self.reach[here], 0)),
      candidates=self.candidates.at[here].set(candidates),
      share=self.share.at[here].set(share),
    )

  def add(self, node: Int[Array, ""] | int) -> "Growth":
    """Returns the tree with the next child of the slot of the largest value, as `node`.

    This is DySpec's step (2410.11744). A slot of value v whose child x has the share R(x) of what
    is left of q becomes a node of reach v R(x), and a slot of value v (1 - R(x)) for x's next
    sibling. Ties go to the earlier node. Where no slot is left, `node` stays missing.
    """
    above = jnp.argmax(self.value)
    value, place = self.value[above], self.children[above]
    has_slot = value > 0
    share = self.share[above, place]
    following = jnp.minimum(place + 1, self.candidates.shape[1] - 1)
    more = (following > place) & (self.share[above, following] > 0)
    return self.replace(
      token=self.token.at[node].set(self.candidates[above, place]),
      parent=self.parent.at[node].set(jnp.where(has_slot, above, 0).astype(jnp.int32)),
      depth=self.depth.at[node].set(self.depth[above] + 1),
      order=self.order.at[node].set(place),
      valid=self.valid.at[node].set(has_slot),
      reach=self.reach.at[node].set(value * share),
      value=self.value.at[above].set(jnp.where(more, value * (1 - share), 0)),
      children=self.children.at[above].add(has_slot.astype(jnp.int32)),
    )

  def add_all(self, begin: int, end: int) -> "Growth":
    """Returns the tree with nodes begin, ..., end - 1, each as `add` adds it."""
    return jax.lax.fori_loop(begin, end, lambda node, growth: growth.add(node), self)

  def tree(self, height: int) -> TokenTree:
    """Returns the tree as verifiers take it: one row's, or a batch's if the Growth is mapped."""
    return TokenTree(
      self.token,
      self.parent,
      self.depth,
      self.order,
      self.valid,
      height=height,
      breadth=self.candidates.shape[-1],
    )


def shares(q: Float[Array, "*M C"], valid: Bool[Array, "*M C"]) -> Float[Array, "*M C"]:
  """Returns q(x_c) / (1 - q(x_1) - ... - q(x_(c-1))) for each child; 0 where there is none."""
  left = 1 - (jnp.cumsum(q, axis=-1) - q)
  return jnp.where(valid & (q > 0), q / jnp.maximum(left, q), 0)
