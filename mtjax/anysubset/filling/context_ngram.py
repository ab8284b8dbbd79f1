"""Drafts from bigrams of the context (2504.20456, app. on draft models): no forward pass."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.anysubset.filling.state import FillState, Problem, at_ranks


def context_bigrams(
  problem: Problem, state: FillState, drafted: Int[Array, "B J"], vocab: int
) -> Float[Array, "B V"]:
  """log p (-inf: never) of the entry that follows the J drafted ones in the order.

  p is what followed the token to the left of the entry, counted over all adjacent pairs of given
  and decided tokens; where that token was never followed by one, or is not known, the counts of
  tokens themselves; without any token, uniform. A token just drafted is known on the left, and
  counts nothing itself. The model's sink is no token.
  """
  canvas, places = problem.canvas, drafted.shape[1]
  rows = jnp.arange(drafted.shape[0])[:, None]
  known = canvas.is_context | (state.decided_at > 0)
  known &= state.token < vocab
  recent = at_ranks(problem, state.count, places + 1)
  token = state.token.at[rows, recent[:, :places]].set(drafted)
  seen = known.at[rows, recent[:, :places]].set(True)
  place = recent[:, places]
  before = jnp.maximum(place - 1, 0)[:, None]
  left = jnp.take_along_axis(token, before, axis=1)
  is_known = jnp.take_along_axis(seen, before, axis=1) & (place[:, None] > 0)
  pair = known[:, :-1] & known[:, 1:] & (state.token[:, :-1] == left) & is_known

  def counts(values, keep):
    empty = jnp.zeros((values.shape[0], vocab))
    return empty.at[rows, jnp.where(keep, values, vocab)].add(1, mode="drop")

  bigrams = counts(state.token[:, 1:], pair)
  unigrams = counts(state.token, known)
  found = jnp.where(jnp.any(bigrams > 0, axis=1, keepdims=True), bigrams, unigrams)
  found = jnp.where(jnp.any(found > 0, axis=1, keepdims=True), found, 1.0)
  return jax.nn.log_softmax(jnp.log(found), axis=-1)
