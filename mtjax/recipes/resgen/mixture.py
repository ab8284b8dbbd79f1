"""A mixture of Gaussians per position: density, variational bound and samples.

Shapes: K components, C numbers per vector. The Gaussians are isotropic, each with its own scale.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key

from mtjax.display.short import short_repr


class Mixture(struct.PyTreeNode):
  """p(z) = sum_k softmax(logits)_k N(z; mean_k, scale_k^2 I)."""

  logits: Float[Array, "*B K"]
  mean: Float[Array, "*B K C"]
  log_scale: Float[Array, "*B K"]

  __repr__ = short_repr

  def component_log_density(self, z: Float[Array, "*B C"]) -> Float[Array, "*B K"]:
    """Returns log N(z; mean_k, scale_k^2 I) for each component."""
    width = z.shape[-1]
    distance = jnp.sum(jnp.square(z[..., None, :] - self.mean), axis=-1)
    scaled = distance * jnp.exp(-2 * self.log_scale)
    return -0.5 * (scaled + width * math.log(2 * math.pi)) - width * self.log_scale

  def log_density(self, z: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    """Returns log p(z)."""
    joint = jax.nn.log_softmax(self.logits) + self.component_log_density(z)
    return jax.nn.logsumexp(joint, axis=-1)

  def bound(self, z: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    """Returns sum_k q_k (log N_k + log pi_k - log q_k) <= log p(z), with q_k prop. to N_k(z).

    (ResGen 2412.10208, sec. 3; CLaM-TTS 2404.02781, sec. 3.) The first part trains the means as a
    regression and the others train the weights as a classification of the component. By Jensen's
    inequality it is a lower bound for any q, and equal to log p(z) for equal weights, where q is
    the posterior. No gradient goes through q.
    """
    density = self.component_log_density(z)
    log_q = jax.lax.stop_gradient(jax.nn.log_softmax(density))
    log_weight = jax.nn.log_softmax(self.logits)
    # A component of probability 0 in float32 counts 0, whatever its density.
    terms = jnp.where(jnp.exp(log_q) > 0, density + log_weight - log_q, 0.0)
    return jnp.sum(jnp.exp(log_q) * terms, axis=-1)

  def sample(
    self, key: Key[Array, ""], temperature: Float[Array, ""] | float = 1.0
  ) -> Float[Array, "*B C"]:
    """Returns a vector: a component by its weight, then its mean plus temperature * scale noise.

    Any temperature but 1 is APPROXIMATE: it samples from narrower or wider Gaussians.
    """
    choose, spread = jax.random.split(key)
    noise = jax.random.gumbel(choose, self.logits.shape, mode="high")
    k = jnp.argmax(self.logits + noise, axis=-1)[..., None]
    mean = jnp.take_along_axis(self.mean, k[..., None], axis=-2)[..., 0, :]
    scale = jnp.exp(jnp.take_along_axis(self.log_scale, k, axis=-1))
    return mean + temperature * scale * jax.random.normal(spread, mean.shape)
