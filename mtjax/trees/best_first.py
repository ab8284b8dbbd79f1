"""A tree of the most probable paths of a draft distribution, searched level by level."""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from mtjax.sampling.categorical import top_k
from mtjax.sharding.vocabulary import over_vocabulary
from mtjax.types import TokenTree


class Candidates(struct.PyTreeNode):
  """K candidate tokens after each of the K best nodes of a level; index d of H holds depth d + 1.

  A candidate's number is (d K + place of its parent in the beam above) K + rank. So a parent has a
  smaller number than its children, and a more probable sibling than a less probable one.
  """

  score: Float[Array, "B H K K"]  # log-probability of the path; -inf: no candidate
  token: Int[Array, "B H K K"]
  beam: Int[Array, "B H K"]  # the K best candidates of each level, as place K + rank

  @classmethod
  def none(cls, batch: int, height: int, width: int) -> "Candidates":
    """Returns `height` levels without a candidate, of `width` = K."""
    shape = (batch, height, width, width)
    return cls(
      jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32), jnp.zeros(shape[:3], jnp.int32)
    )

  def add(self, depth: int, logp: Float[Array, "B I V"]) -> "Candidates":
    """Returns the candidates with one level more.

    Its parents are the root (I = 1, depth 0) or the beam of the level above (I = K); `logp` are the
    log-probabilities of the tokens after each.
    """
    batch, _, width, _ = self.score.shape
    best, token = over_vocabulary(
      functools.partial(top_k, k=width), logp, roles=("b.v",), out=("b", "b")
    )
    if depth > 0:
      above = self.score[:, depth - 1].reshape(batch, -1)
      best += jnp.take_along_axis(above, self.beam[:, depth - 1], axis=1)[:, :, None]
    missing = ((0, 0), (0, width - best.shape[1]), (0, 0))
    best = jnp.pad(best, missing, constant_values=-jnp.inf)
    beam = jax.lax.top_k(best.reshape(batch, -1), width)[1]
    return Candidates(
      self.score.at[:, depth].set(best),
      self.token.at[:, depth].set(jnp.pad(token, missing).astype(jnp.int32)),
      self.beam.at[:, depth].set(beam.astype(jnp.int32)),
    )

  def best(self, size: int) -> tuple[Float[Array, "B S"], Int[Array, "B S"]]:
    """Returns the `size` best scores of all levels and the numbers of their candidates.

    A child's score is at most its parent's, and among equal scores the smaller number wins. So the
    parent of a candidate that is returned is returned too.
    """
    score, number = jax.lax.top_k(self.score.reshape(self.score.shape[0], -1), size)
    return score, number.astype(jnp.int32)

  def entries(self, depth: int) -> tuple[Int[Array, "B K"], Int[Array, "B K"], Array]:
    """Returns the beam of a level: tokens, places of parents in the beam above, which exist."""
    batch, _, width, _ = self.score.shape
    beam = self.beam[:, depth]
    token, score = (
      jnp.take_along_axis(x[:, depth].reshape(batch, -1), beam, axis=1)
      for x in (self.token, self.score)
    )
    return token, beam // width, score > -jnp.inf

  def tree(
    self, root: Int[Array, " B"], score: Float[Array, "B S"], number: Int[Array, "B S"]
  ) -> tuple[TokenTree, Int[Array, "B S"]]:
    """Returns what `best` chose as a tree in the order of the numbers, and each draft's number."""
    batch, height, width, _ = self.score.shape
    square = width * width
    number = jnp.where(score > -jnp.inf, number, height * square)  # no candidate: behind all others
    number = jnp.sort(number, axis=1)
    valid = number < height * square
    known = jnp.where(valid, number, 0)
    depth, place = known // square, known // width % width
    above = jnp.maximum(depth - 1, 0)
    beam = jnp.take_along_axis(self.beam.reshape(batch, -1), above * width + place, axis=1)
    rows = jnp.arange(batch)[:, None]
    node = jnp.zeros((batch, height * square), jnp.int32)
    node = node.at[rows, number].set(1 + jnp.arange(number.shape[1]), mode="drop")
    parent = jnp.take_along_axis(node, above * square + beam, axis=1)
    token = jnp.take_along_axis(self.token.reshape(batch, -1), known, axis=1)

    def nodes(first, rest):
      return jnp.concatenate([first[:, None], rest], axis=1).astype(jnp.int32)

    zero = jnp.zeros_like(root)
    tree = TokenTree(
      token=nodes(root, token),
      parent=nodes(zero - 1, jnp.where((depth > 0) & valid, parent, 0)),
      depth=nodes(zero, depth + 1),
      order=nodes(zero, known % width),
      valid=nodes(zero + 1, valid) > 0,
      height=height,
      breadth=width,
    )
    return tree, number

  def entry_of(self, number: Int[Array, "B S"], levels: Int[Array, ""]) -> Int[Array, "B S"]:
    """Returns the index of each candidate among the beams of the first `levels` levels.

    The beams stand one after another, K entries each. -1: the candidate is in none of them.
    """
    batch, height, width, _ = self.score.shape
    where = jnp.arange(height)[:, None] * width**2 + self.beam
    entry = jnp.arange(height)[:, None] * width + jnp.arange(width)
    entry = jnp.where(jnp.arange(height)[:, None] < levels, entry, -1)
    out = jnp.full((batch, height * width**2), -1, jnp.int32)
    rows = jnp.arange(batch)[:, None, None]
    out = out.at[rows, where].set(jnp.broadcast_to(entry, where.shape).astype(jnp.int32))
    return jnp.take_along_axis(out, number, axis=1, mode="fill", fill_value=-1)
