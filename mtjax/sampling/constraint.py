"""Constraints of texts in a compiled program: automata, and the place of a text in its own.

`mtjax.constraints` makes the automata. Here they only say which tokens may come next.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

from mtjax.display.short import short_repr

UNREACHABLE = jnp.iinfo(jnp.int32).max  # distance of a state from which no text is accepted


class Place(struct.PyTreeNode):
  """The state of a text's automaton and the number of tokens that may follow, end token included.

  State 0 is the start. State -1 is that of a text which the automaton refuses: only drafts that
  cannot be accepted have it.
  """

  state: Int[Array, "B *N"]
  left: Int[Array, "B *N"]

  __repr__ = short_repr


class Automata(struct.PyTreeNode):
  """K automata over one vocabulary, and the one that each row of a batch follows.

  Tokens with the same transitions are a class. End tokens are a class of their own, from accepting
  states to one that only they leave. A row without a constraint has an automaton of one state that
  allows all tokens.
  """

  which: Int[Array, " B"]
  class_of_token: Int[Array, "K V"]
  next: Int[Array, "K S C"]  # -1: the token may not follow
  # Smallest number of tokens to an accepting state, without the end token; UNREACHABLE in padding.
  distance: Int[Array, "K S"]

  __repr__ = short_repr

  def start(self, limit: Int[Array, " B"]) -> Place:
    """Returns the place of empty texts that may have `limit` tokens."""
    return Place(jnp.zeros_like(limit), limit)

  def advance(self, state: Int[Array, "B *N"], token: Int[Array, "B *N"]) -> Int[Array, "B *N"]:
    """Returns the states after one more token each; -1 stays -1."""
    which = self.which.reshape(-1, *[1] * (state.ndim - 1))
    after = self.next[which, jnp.maximum(state, 0), self.class_of_token[which, token]]
    return jnp.where(state < 0, -1, after)

  def follow(self, place: Place, token: Int[Array, "B P"], keep: Bool[Array, "B P"]) -> Place:
    """Returns the places after those tokens that `keep` names, one after the other."""

    def step(state, one):
      column, kept = one
      return jnp.where(kept, self.advance(state, column), state), None

    state, _ = jax.lax.scan(step, place.state, (token.T, keep.T))
    return Place(state, place.left - jnp.sum(keep, axis=1, dtype=place.left.dtype))

  def along(
    self,
    place: Place,
    token: Int[Array, "B N"],
    parent: Int[Array, "B N"],
    depth: Int[Array, "B N"],
    height: int,
  ) -> Place:
    """Returns the place after each node of a tree whose root is the last token of the rows.

    Level by level: a node of depth d follows its parent, of depth d - 1.
    """

    def level(d, state):
      above = jnp.take_along_axis(state, jnp.maximum(parent, 0), axis=1)
      return jnp.where(depth == d, self.advance(above, token), state)

    root = jnp.broadcast_to(place.state[:, None], token.shape)
    return Place(jax.lax.fori_loop(1, height + 1, level, root), place.left[:, None] - depth)

  def allowed(self, place: Place) -> Bool[Array, "B N V"]:
    """Returns the tokens after which a text can still be accepted within its tokens left.

    With n tokens left, a token may lead to a state that is at most n - 1 tokens away from an
    accepting one. Where nothing can follow (a refused draft, no tokens left) all tokens are
    allowed, for the logits of such a node must be finite, and nobody reads what they are.
    """
    state, left = (x[:, None] if x.ndim == 1 else x for x in (place.state, place.left))
    which = self.which[:, None]
    after = self.next[which, jnp.maximum(state, 0)]
    distance = jnp.where(
      after < 0, UNREACHABLE, self.distance[which[..., None], jnp.maximum(after, 0)]
    )
    by_class = (distance < left[..., None]) | ((state < 0) | (left < 1))[..., None]
    return jnp.take_along_axis(by_class, self.class_of_token[self.which][:, None], axis=2)
