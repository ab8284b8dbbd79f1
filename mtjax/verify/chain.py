"""Chain rejection sampling: one draft per position, kept with probability min(1, p(x) / q(x))."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.verify.laws import difference, ratio
from mtjax.verify.walk import Coupling


def rejection(
  p: Float[Array, " V"], q: Float[Array, " V"], token: Int[Array, " C"], valid: Bool[Array, " C"]
) -> Coupling:
  """Leviathan et al. (2211.17192, alg. 1) and Chen et al. (2302.01318, alg. 2), at one position.

  A refused draft is replaced by y ~ norm((p - q)+), and y ~ p follows the last one kept. q must be
  exactly the law that x was drawn from. Kept with probability sum min(p, q) on average. C is 1.
  """
  x = token[0]
  take = jnp.where(valid[0], ratio(p[x], q[x]), 0)
  return Coupling(take[None], jnp.where(valid[0], difference(p, q), p))
