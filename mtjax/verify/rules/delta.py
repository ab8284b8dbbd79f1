"""Drafts chosen by whatever rule: top-k trees, n-grams, retrieval, heads' argmax."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.sharding import vocabulary
from mtjax.verify.probs import normalise, without_tokens
from mtjax.verify.walk import Coupling


def delta(
  p: Float[Array, " V"],
  q: Float[Array, " V"] | None,
  token: Int[Array, " C"],
  valid: Bool[Array, " C"],
) -> Coupling:
  """Returns recursive rejection with a one-hot q (EAGLE-2, 2406.16858); q itself is not read.

  Step by step: accept x_1 with probability p(x_1); else p <- norm(p with p(x_1) = 0), and so on;
  if none is accepted, y ~ p. Over the whole node, child x has probability p(x), and an equal
  sibling after it none. Lossless for any tree that was chosen without the target's randomness,
  equal siblings and sampled drafts included, though these have better verifiers.
  """
  first = first_of_equals(token, valid)
  return Coupling(
    accept=jnp.where(first, vocabulary.at(p, token), 0),
    residual=normalise(without_tokens(p, token, valid), p),
  )


def first_of_equals(token: Int[Array, " C"], valid: Bool[Array, " C"]) -> Bool[Array, " C"]:
  """Returns the valid children that differ from all valid siblings before them."""
  same = (token[:, None] == token[None, :]) & valid[None, :]
  earlier = jnp.tril(same, -1)
  return valid & ~jnp.any(earlier, axis=1)
