"""Counts of tried and accepted candidates, on the device: `count_history` as arrays."""

import jax
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


class RoundLog(struct.PyTreeNode):
  """How rounds of one choice ended, which are counted together when the chooser is asked.

  To write a row of numbers costs a round much less than to count.
  """

  ended: Int[Array, "R B W"]  # path, then count, tokens emitted, and tokens that could be

  @classmethod
  def empty(cls, rounds: int, batch: int, height: int) -> "RoundLog":
    return cls(jnp.zeros((rounds, batch, height + 4), jnp.int32))

  def write(
    self,
    place: Int[Array, ""],
    verdict: Verdict,
    num_emitted: Int[Array, " B"],
    rest: Int[Array, " B"],
  ) -> "RoundLog":
    """Returns the log with a round at a place; its path may be shorter than the log's."""
    width = self.ended.shape[2] - 3
    path = jnp.pad(verdict.path, ((0, 0), (0, width - verdict.path.shape[1])))
    numbers = jnp.stack([verdict.count, num_emitted, rest], axis=1)
    row = jnp.concatenate([path, numbers], axis=1).astype(jnp.int32)
    return RoundLog(jax.lax.dynamic_update_index_in_dim(self.ended, row, place, 0))

  def read(self, rounds: Int[Array, ""]) -> tuple[Verdict, Int[Array, " N"], Int[Array, " N"]]:
    """Returns the first rounds as rows of one: verdicts (of no token), tokens emitted, and rest."""
    count, num_emitted, rest = jnp.moveaxis(self.ended[:, :, -3:], 2, 0)
    there = jnp.arange(self.ended.shape[0])[:, None] < rounds
    num_emitted = jnp.where(there, num_emitted, 0).ravel()
    path = self.ended[:, :, :-3].reshape(num_emitted.shape[0], -1)
    return Verdict(path, count.ravel(), jnp.zeros_like(num_emitted)), num_emitted, rest.ravel()


def count_round(
  shape: Shape,
  verdict: Verdict,
  num_emitted: Int[Array, " B"],
  rest: Int[Array, " B"],
  breadth: int,
) -> RoundCounts:
  """Returns the counts of trees of a shape, one per row.

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
  """Returns the counts of drafts of no shape, up to `height` deep: of any child.

  So rates by depth say how far a round goes, whatever tree the drafter chose.
  """
  depth = jnp.arange(verdict.path.shape[1])
  judged = jnp.where(num_emitted < verdict.count, num_emitted, verdict.count)
  running = num_emitted[:, None] > 0
  tried = (depth[:-1] < judged[:, None]) & (depth[1:] <= rest[:, None]) & (depth[1:] <= height)
  reached = depth[1:] <= jnp.minimum(num_emitted, verdict.count - 1)[:, None]
  sums = [jnp.sum(x & running, axis=0).astype(jnp.int32)[:, None] for x in (tried, reached)]
  return RoundCounts(*sums, trees=jnp.sum(num_emitted > 0))
