"""Greedy plus one: the most probable tokens of the draft, and one sampled from the others."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.sharding import vocabulary
from mtjax.verify.probs import normalise, ratio, without_tokens
from mtjax.verify.walk import Coupling


def greedy_plus_one(
  p: Float[Array, " V"], q: Float[Array, " V"], token: Int[Array, " C"], valid: Bool[Array, " C"]
) -> Coupling:
  """Returns Hu et al. (2502.18779): n - 1 fixed tokens, the last child from q without them.

  With q~ the distribution of the sampled child x: x is accepted with probability min(1, p(x) /
  q~(x)); else r ~ norm((p - q~)+), which is accepted where it is one of the fixed tokens and
  emitted where it is not. Reaches the optimal acceptance of its drafts. Lossless whatever the fixed
  tokens are, as long as they are distinct and chosen from q alone; the last valid child must be the
  sampled one.
  """
  slots = jnp.arange(token.shape[0])
  is_sampled = valid & (slots == jnp.max(jnp.where(valid, slots, -1)))
  fixed = valid & ~is_sampled
  probs = normalise(without_tokens(q, token, fixed))
  x = token[jnp.argmax(is_sampled)]
  q_x = vocabulary.at(probs, x)
  any_sampled = jnp.any(is_sampled) & (q_x > 0)
  take = jnp.where(any_sampled, ratio(vocabulary.at(p, x), q_x), 0)
  rest = jnp.where(any_sampled, normalise(jnp.maximum(p - probs, 0), p), p)
  accept = jnp.where(fixed, (1 - take) * vocabulary.at(rest, token), 0)
  return Coupling(
    accept=accept + jnp.where(is_sampled, take, 0),
    residual=normalise(without_tokens(rest, token, fixed), p),
  )
