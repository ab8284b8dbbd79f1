"""Recursive rejection sampling: siblings are tried in draw order, each against what is left of p.

At a node with target law p, children x_1..x_k in draw order: x_j is taken with probability
min(1, p(x_j) / q(x_j)); else p <- norm((p - q)+), and for drafts without replacement
q <- norm(q with q(x_j) = 0). If none is taken, y ~ p is emitted. Children must stay in draw order
(sorting or pruning them after drawing is biased). A child with q(x) = 0 is passed over: it can
only be filling from when q ran out, or a repetition.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.verify.probs import difference, ratio, without
from mtjax.verify.walk import Coupling


def with_replacement(
  p: Float[Array, " V"], q: Float[Array, " V"], token: Int[Array, " C"], valid: Bool[Array, " C"]
) -> Coupling:
  """SpecInfer's multi-step sampling (2305.09781, sec. 4.3): k independent draws from q."""
  return _recursive(p, q, token, valid, lambda q, x: q)


def without_replacement(
  p: Float[Array, " V"], q: Float[Array, " V"], token: Int[Array, " C"], valid: Bool[Array, " C"]
) -> Coupling:
  """Sequoia (2402.12374, alg. 2), EAGLE-1: x_j is drawn from q without x_1..x_(j-1).

  Independent draws without their repetitions have that law, and repetitions, whose q is 0 by then,
  are passed over: lossless for those too, though `with_replacement` takes a little more of them.
  """
  return _recursive(p, q, token, valid, without)


def _recursive(p, q, token, valid, tried):
  def child(c, state):
    p, q, left, accept = state
    x = token[c]
    real = valid[c] & (q[x] > 0)
    take = jnp.where(real, left * ratio(p[x], q[x]), 0)
    return (
      jnp.where(real, difference(p, q), p),
      jnp.where(real, tried(q, x), q),
      left - take,
      accept.at[c].set(take),
    )

  start = (p, q, jnp.ones_like(p[0]), jnp.zeros(token.shape, p.dtype))
  p, _, _, accept = jax.lax.fori_loop(0, token.shape[0], child, start)
  return Coupling(accept, p)
