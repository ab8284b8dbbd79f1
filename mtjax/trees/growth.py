"""Trees that grow where a draft is expected to be accepted, one sampled child at a time."""

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from mtjax.types import TokenTree


class Growth(struct.PyTreeNode):
  """A tree of one row while it grows; N nodes, of which the later ones are still missing.

  Every node has one slot, for its next child. C possible children are sampled in order as soon as
  the node's q is known; growth looks at a child when it is added, not before.
  """

  token: Int[Array, " N"]
  parent: Int[Array, " N"]
  depth: Int[Array, " N"]
  order: Int[Array, " N"]
  valid: Bool[Array, " N"]
  reach: Float[Array, " N"]  # the drafter's estimate of the chance that a node is accepted
  value: Float[Array, " N"]  # chance that it is accepted and its next child is tried; 0: no slot
  children: Int[Array, " N"]  # number of children so far
  sampled: Int[Array, "N C"]  # children in sampling order, of nodes whose q is known
  share: Float[Array, "N C"]  # `shares` of `sampled`

  @classmethod
  def plant(
    cls, root: Int[Array, ""], size: int, breadth: int, dtype: DTypeLike = jnp.float32
  ) -> "Growth":
    """Returns the root, its q not known yet, in a tree of `size` nodes."""
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
      sampled=jnp.zeros((size, breadth), jnp.int32),
      share=jnp.zeros((size, breadth), dtype),
    )

  def open(
    self, node: int, sampled: Int[Array, "M C"], share: Float[Array, "M C"], height: int
  ) -> "Growth":
    """Gives nodes node, ..., node + M - 1 their slots, but for those at depth `height`."""
    here = slice(node, node + sampled.shape[0])
    may = self.valid[here] & (self.depth[here] < height) & (share[:, 0] > 0)
    return self.replace(
      value=self.value.at[here].set(jnp.where(may, self.reach[here], 0)),
      sampled=self.sampled.at[here].set(sampled),
      share=self.share.at[here].set(share),
    )

  def add(self, node: Int[Array, ""] | int) -> "Growth":
    """Returns the tree with the next child of the slot of the largest value, as `node`.

    A slot of value v whose child x has the share R(x) of the rest of q leaves a node of reach
    v R(x), and a slot of value v (1 - R(x)) for x's next sibling. Ties go to the earlier node.
    Without a slot `node` stays missing.
    """
    above = jnp.argmax(self.value)
    value, place = self.value[above], self.children[above]
    is_open = value > 0
    share = self.share[above, place]
    following = jnp.minimum(place + 1, self.sampled.shape[1] - 1)
    more = (following > place) & (self.share[above, following] > 0)
    return self.replace(
      token=self.token.at[node].set(self.sampled[above, place]),
      parent=self.parent.at[node].set(jnp.where(is_open, above, 0).astype(jnp.int32)),
      depth=self.depth.at[node].set(self.depth[above] + 1),
      order=self.order.at[node].set(place),
      valid=self.valid.at[node].set(is_open),
      reach=self.reach.at[node].set(value * share),
      value=self.value.at[above].set(jnp.where(more, value * (1 - share), 0)),
      children=self.children.at[above].add(is_open.astype(jnp.int32)),
    )

  def add_all(self, begin: int, end: int) -> "Growth":
    """Returns nodes begin, ..., end - 1."""
    return jax.lax.fori_loop(begin, end, lambda node, growth: growth.add(node), self)

  def tree(self, height: int) -> TokenTree:
    """Returns the tree for verifiers (of one row, or of a batch for a mapped Growth)."""
    return TokenTree(
      self.token,
      self.parent,
      self.depth,
      self.order,
      self.valid,
      height=height,
      breadth=self.sampled.shape[-1],
    )


def shares(q: Float[Array, "*M C"], valid: Bool[Array, "*M C"]) -> Float[Array, "*M C"]:
  """Returns q(x_c) as a share of what x_1, ..., x_(c-1) leave of q; 0 where there is no child."""
  left = 1 - (jnp.cumsum(q, axis=-1) - q)
  return jnp.where(valid & (q > 0), q / jnp.maximum(left, q), 0)
