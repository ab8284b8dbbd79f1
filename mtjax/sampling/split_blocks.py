"""The best tokens, and blocks of tokens, of a vocabulary that devices have parts of.

Only inside `mtjax.sharding.vocabulary.over_vocabulary`. Blocks are those of the whole vocabulary,
whose borders need not be those of the parts: two devices may have tokens of one block.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.sharding import vocabulary


def argmax(logits: Float[Array, "*N V"]) -> Int[Array, "*N"]:
  """Returns the argmax over all parts, int32: the lowest id of equals."""
  own = jnp.max(logits, axis=-1)
  token = jnp.argmax(logits, axis=-1).astype(jnp.int32) + vocabulary.first_token(logits)
  last = vocabulary.size(logits) - 1  # nobody has the largest if it is NaN
  return vocabulary.smallest(jnp.where(own == vocabulary.largest(own), token, last))


def top_k(logits: Float[Array, "*N V"], k: int) -> tuple[Float[Array, "*N C"], Int[Array, "*N C"]]:
  """Returns the `k` best logits of all parts, best first and of equals the lowest id, and tokens.

  Each device offers its own `k` best.
  """
  score, token = jax.lax.top_k(logits, min(k, logits.shape[-1]))
  token = token.astype(jnp.int32) + vocabulary.first_token(logits)
  # Equals stay in the order of the parts, which is that of their ids.
  best, place = jax.lax.top_k(vocabulary.side_by_side(score), k)
  return best, jnp.take_along_axis(vocabulary.side_by_side(token), place, axis=-1)


class SplitBlocks(NamedTuple):
  """The blocks that a part of the vocabulary has tokens of; -inf stands where it has none."""

  own: Float[Array, "*N J W"]
  first: Int[Array, ""]  # number of the first of them among all blocks
  count: int  # number of all blocks

  @classmethod
  def of(cls, logits: Float[Array, "*N V"], width: int) -> "SplitBlocks":
    """Returns the blocks of `width` tokens."""
    begin = vocabulary.first_token(logits)
    blocks = -(-logits.shape[-1] // width) + 1
    empty = jnp.full((*logits.shape[:-1], blocks * width), -jnp.inf, logits.dtype)
    own = jax.lax.dynamic_update_slice_in_dim(empty, logits, begin % width, axis=-1)
    count = -(-vocabulary.size(logits) // width)
    return cls(own.reshape(*logits.shape[:-1], blocks, width), jnp.asarray(begin // width), count)

  def logsumexp(self) -> Float[Array, "*N K"]:
    """Returns the log-sum-exp of each of all blocks: two exchanges of a number per block."""
    best = vocabulary.largest(self._among_all(jnp.max(self.own, axis=-1), -jnp.inf))
    best = jnp.where(jnp.isfinite(best), best, 0)
    padding = [(0, 0)] * (best.ndim - 1) + [(0, self.own.shape[-2])]
    mine = jax.lax.dynamic_slice_in_dim(
      jnp.pad(best, padding), self.first, self.own.shape[-2], axis=-1
    )
    mass = jnp.sum(jnp.exp(self.own - mine[..., None]), axis=-1)
    return jnp.log(vocabulary.summed(self._among_all(mass, 0))) + best

  def inside(self, block: Int[Array, "*C"]) -> Float[Array, "*C W"]:
    """Returns the logits of some blocks, on every device."""
    place = block - self.first
    here = (place >= 0) & (place < self.own.shape[-2])
    places = jnp.where(here, place, 0).reshape(*self.own.shape[:-2], -1, 1)
    inside = jnp.take_along_axis(self.own, places, axis=-2).reshape(*block.shape, -1)
    return vocabulary.largest(jnp.where(here[..., None], inside, -jnp.inf))

  def _among_all(self, own, nothing):
    """Returns a number per block of this part as one per block of all: `nothing` elsewhere."""
    shape = (*own.shape[:-1], self.count + own.shape[-1])
    everywhere = jnp.full(shape, nothing, own.dtype)
    placed = jax.lax.dynamic_update_slice_in_dim(everywhere, own, self.first, axis=-1)
    return placed[..., : self.count]
