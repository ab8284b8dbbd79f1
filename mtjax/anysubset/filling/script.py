"""A fill whose decisions are given: a problem that has them makes the same ones again."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

from mtjax.display.short import short_repr


class FillScript(struct.PyTreeNode):
  """What a fill has decided, by entry.

  Whatever a method would sample, it takes from here, in the same order, and it keeps the drafts
  that were kept; so its passes see the same entries, under any parameters.
  """

  token: Int[Array, "B L"]
  decided_at: Int[Array, "B L"]  # forward pass that decides an entry, from 1; 0: none does
  place: Int[Array, "B L"]  # place of an entry among those of its pass; arbitrary where none does
  drafted: Bool[Array, "B L"]  # entries that are accepted drafts

  __repr__ = short_repr

  def tokens_at(self, index: Int[Array, "B P"]) -> Int[Array, "B P"]:
    """Returns the tokens at canvas indices; past the canvas they are arbitrary."""
    return jnp.take_along_axis(self.token, self._within(index), axis=1)

  def decided_in(self, number: Int[Array, " B"], index: Int[Array, "B P"]) -> Bool[Array, "B P"]:
    """Returns the canvas indices that pass `number` of each row, from 1, decides."""
    at = jnp.take_along_axis(self.decided_at, self._within(index), axis=1)
    return (at == number[:, None]) & (index < self.token.shape[1])

  def places_at(self, index: Int[Array, "B P"]) -> Int[Array, "B P"]:
    """Returns the places in their passes of canvas indices; past the canvas they are arbitrary."""
    return jnp.take_along_axis(self.place, self._within(index), axis=1)

  def drafts_in(self, number: Int[Array, " B"], index: Int[Array, "B P"]) -> Int[Array, " B"]:
    """Returns how many accepted drafts pass `number` of each row decides at these indices."""
    drafted = jnp.take_along_axis(self.drafted, self._within(index), axis=1)
    return jnp.sum(drafted & self.decided_in(number, index), axis=1, dtype=jnp.int32)

  def _within(self, index: Int[Array, "B P"]) -> Int[Array, "B P"]:
    return jnp.minimum(index, self.token.shape[1] - 1)
