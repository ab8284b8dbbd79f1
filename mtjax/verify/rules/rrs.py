"""Recursive rejection sampling: siblings are tried in sampling order, each against the rest of p.

At a node with target probabilities p and children x_1..x_k in sampling order, x_j is accepted with
probability min(1, p(x_j) / q(x_j)); else p <- norm((p - q)+), and for drafts without replacement q
<- norm(q with q(x_j) = 0). If none is accepted, y ~ p is emitted. Children must stay in sampling
order (to sort or prune them afterwards is biased). A child with q(x) = 0 is skipped: it is padding
from where q ran out, or a repetition.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.sharding import vocabulary
from mtjax.verify.probs import difference, ratio, without
from mtjax.verify.walk import Coupling


def with_replacement(
  p: Float[Array, " V"], q: Float[Array, " V"], token: Int[Array, " C"], valid: Bool[Array, " C"]
) -> Coupling:
  """Returns SpecInfer's multi-step sampling (2305.09781, sec. 4.3) of k samples from q."""
  return _recursive(p, q, token, valid, lambda q, x: q)


def without_replacement(
  p: Float[Array, " V"], q: Float[Array, " V"], token: Int[Array, " C"], valid: Bool[Array, " C"]
) -> Coupling:
  """Returns Sequoia's coupling (2402.12374, alg. 2; EAGLE-1): x_j ~ q without x_1..x_(j-1).

  Independent samples without their repetitions have that distribution, and repetitions, whose q is
  0 by then, are skipped: lossless for these too, though `with_replacement` accepts a few more.
  """
  return _recursive(p, q, token, valid, without)


def _recursive(p, q, token, valid, tried):
  def child(c, state):
    p, q, left, accept = state
    x = token[c]
    q_x = vocabulary.at(q, x)
    real = valid[c] & (q_x > 0)
    take = jnp.where(real, left * ratio(vocabulary.at(p, x), q_x), 0)
    return (
      jnp.where(real, difference(p, q), p),
      jnp.where(real, tried(q, x), q),
      left - take,
      accept.at[c].set(take),
    )

  start = (p, q, jnp.ones_like(p[0]), jnp.zeros(token.shape, p.dtype))
  p, _, _, accept = jax.lax.fori_loop(0, token.shape[0], child, start)
  return Coupling(accept, p)
