"""K-SEQ: independent drafts tried one after the other against one scaled-down q."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.sharding import vocabulary
from mtjax.verify.probs import normalise, ratio
from mtjax.verify.walk import Coupling


def kseq(
  p: Float[Array, " V"], q: Float[Array, " V"], token: Int[Array, " C"], valid: Bool[Array, " C"]
) -> Coupling:
  """Returns the coupling of SpecTr (2310.15141) for n independent samples from q.

  x_j is accepted with probability min(1, p(x_j) / (rho q(x_j))), the same for every j; else
  y ~ norm(p - min(q, p / rho) a / beta), with beta = sum min(q, p / rho), a = 1 - (1 - beta)^n.
  The best rho solves a = rho beta; any larger one is lossless too, and the bisection returns its
  upper end, so nothing depends on how far it got. Within 1 - 1/e of the optimal acceptance.
  """
  count = jnp.sum(valid).astype(p.dtype)
  rho = division(p, q, count)
  q_x = vocabulary.at(q, token)
  take = jnp.where(valid & (q_x > 0), ratio(vocabulary.at(p, token), rho * q_x), 0)
  left = jnp.cumprod(1 - take)  # no child up to this one was accepted
  common = jnp.minimum(q, p / rho)
  beta = vocabulary.total(common)
  scale = (1 - (1 - beta) ** count) / jnp.where(beta > 0, beta, 1)
  residual = normalise(jnp.maximum(p - common * scale, 0), p)
  accept = take * jnp.append(jnp.ones_like(left[:1]), left[:-1])
  return Coupling(accept, jnp.where(count > 0, residual, p))


def division(
  p: Float[Array, " V"], q: Float[Array, " V"], count: Float[Array, ""]
) -> Float[Array, ""]:
  """Returns the smallest rho in [1, count] with 1 - (1 - beta)^count <= rho beta, in p's dtype."""

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high) / 2
    beta = vocabulary.total(jnp.minimum(q, p / middle))
    enough = 1 - (1 - beta) ** count <= middle * beta
    return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

  start = (jnp.ones_like(p[0]), jnp.maximum(count, 1))
  return jax.lax.fori_loop(0, jnp.finfo(p.dtype).nmant, halve, start)[1]
