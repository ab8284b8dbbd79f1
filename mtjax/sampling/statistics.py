"""Statistics of the distribution at a position: how sure a model is there.

None of them depends on the token that is sampled. Ranking positions by one of them, and deciding
one per pass, keeps the joint distribution of a model whose conditionals all agree.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.sampling.categorical import top_k


def max_probability(logits: Float[Array, "*N V"]) -> Float[Array, "*N"]:
  """Returns the log-probability of the most probable token.

  MaskGIT (2202.04200) takes that of the sampled token; this is a statistic of the distribution.
  """
  # The largest of `log_softmax`, without the V numbers of it.
  top = jnp.max(logits, axis=-1, keepdims=True)
  return -jnp.log(jnp.sum(jnp.exp(logits - top), axis=-1))


def negative_entropy(logits: Float[Array, "*N V"]) -> Float[Array, "*N"]:
  """Returns sum p log p."""
  log_p = jax.nn.log_softmax(logits)
  return jnp.sum(jnp.where(log_p > -jnp.inf, jnp.exp(log_p) * log_p, 0.0), axis=-1)


def margin(logits: Float[Array, "*N V"]) -> Float[Array, "*N"]:
  """Returns the probability of the most probable token minus that of the second most probable."""
  best = jnp.exp(top_k(logits, 2)[0] - jax.nn.logsumexp(logits, axis=-1, keepdims=True))
  return best[..., 0] - best[..., 1]
