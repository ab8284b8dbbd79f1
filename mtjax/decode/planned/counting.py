"""Counts of tried and accepted candidates of a round, on the device: `count_history` as arrays."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from mtjax.draft.shaped.shape import Shape
from mtjax.types import Verdict


class RoundCounts(struct.PyTreeNode):
  """Sums over rows; index [d, r] as in `mtjax.tuning.profiles.AcceptanceCounts`."""

  tried: Int[Array, "H K"]
  accepted: Int[Array, "H K"]
  trees: Int[Array, ""]

  @classmethod
  def none(cls, height: int, breadth: int) -> "RoundCounts":
    zero = jnp.zeros((height, breadth), jnp.int32)
    return cls(zero, zero, jnp.int32(0))

  def add(self, other: "RoundCounts") -> "RoundCounts":
    """Returns the sums of both; `other` may have a smaller table."""
    height, breadth = other.tried.shape
    return RoundCounts(
      self.tried.at[:height, :breadth].add(other.tried),
      self.accepted.at[:height, :breadth].add(other.accepted),
      self.trees + other.trees,
    )


def count_round(
  shape: Shape,
  verdict: Verdict,
  num_emitted: Int[Array, " B"],
  rest: Int[Array, " B"],
  breadth: int,
) -> RoundCounts:
  """Returns the counts of a round of trees of a shape.

  Nodes of the shape that held no draft count as tried and not accepted, as `count_history` counts
  them with a shape; those behind the end of the text do not count. rest: tokens that a row could
  emit. A row that emitted nothing had ended before.
  """
  height = verdict.path.shape[1] - 1
  path, depth = verdict.path, jnp.arange(height + 1)
  # Behind the last token of a text nothing was judged.
  ended = num_emitted < verdict.count
  judged = depth < jnp.where(ended, num_emitted, verdict.count)[:, None]
  judged &= num_emitted[:, None] > 0
  reached = depth <= jnp.minimum(num_emitted, verdict.count - 1)[:, None]
  at_depth = shape.there & (shape.depth == depth[1:, None])
  # [b, d, n]: node n is a child of the accepted node at depth d, and was judged.
  child = (shape.parent == path[:, :-1, None]) & at_depth & judged[:, :-1, None]
  child &= depth[1:, None] <= rest[:, None, None]
  is_rank = (shape.rank[:, None] == jnp.arange(breadth)).astype(jnp.int32)
  tried = jnp.sum(child, axis=0).astype(jnp.int32) @ is_rank
  hit = (path[:, 1:, None] == jnp.arange(shape.rank.shape[0])) & reached[:, 1:, None]
  hit &= num_emitted[:, None, None] > 0
  accepted = jnp.sum(hit, axis=0).astype(jnp.int32) @ is_rank
  return RoundCounts(tried, accepted, jnp.sum(num_emitted > 0))


def by_depth(
  height: Int[Array, ""] | int, verdict: Verdict, num_emitted: Int[Array, " B"],
  rest: Int[Array, " B"],
) -> RoundCounts:  # fmt: skip
  """Returns the counts of a round of drafts of no shape, up to `height` deep: of any child.

  So rates by depth say how far a round goes, whatever tree the drafter chose.
  """
  depth = jnp.arange(verdict.path.shape[1])
  judged = jnp.where(num_emitted < verdict.count, num_emitted, verdict.count)
  running = num_emitted[:, None] > 0
  tried = (depth[:-1] < judged[:, None]) & (depth[1:] <= rest[:, None]) & (depth[1:] <= height)
  reached = depth[1:] <= jnp.minimum(num_emitted, verdict.count - 1)[:, None]
  sums = [jnp.sum(x & running, axis=0).astype(jnp.int32)[:, None] for x in (tried, reached)]
  return RoundCounts(*sums, trees=jnp.sum(num_emitted > 0))
