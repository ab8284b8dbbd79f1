"""The rule of adaptive parallel decoding: drafts of one model, accepted by a mixture of two."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mtjax.diffusion.rule import SHARE, PerRow, PerRowRule, Range, rule, size_field
from mtjax.sampling.categorical import argmax
from mtjax.sampling.logits import Rules, process
from mtjax.types import Exactness


@rule
class AdaptiveParallel(PerRowRule):
  """APD (2506.00413): a masked model drafts the next tokens, and a causal one scores them once.

  The masked model gives logits d_j of the next `parallel` positions at once, and the causal model
  logits a_j given the drafts before j. With Gumbel noise g_j,

    x_j = argmax(d_j + g_j)             is drafted,
    y_j = argmax(R d_j + (1 - R) a_j + g_j)  is what the mixture would choose, R the `mixture`,

  and the longest prefix with x_j = y_j is accepted, the first token always. Temperature and filters
  are applied to d_j and to the mixture alike, before the noise. The noise is the same (universal
  coupling), so that the two agree as often as the distributions are alike; with R = 1 all do.

  The published code (`apd_accept_criterion`) chooses y_j without noise, whatever the temperature,
  and applies the temperature twice to x_j: neither is done here.
  """

  mixture: PerRow = 0.7
  parallel: int = size_field(default=32)
  ranges: ClassVar[dict[str, Range]] = {"mixture": SHARE}
  exactness = Exactness.APPROXIMATE
  reason = (
    "the first token of each pass is the masked model's alone, the others are taken where a "
    "mixture of two models agrees with it, and neither model's distribution is kept"
  )

  def mixed(
    self, masked: Float[Array, "B W V"], causal: Float[Array, "B W V"]
  ) -> Float[Array, "B W V"]:
    """Returns R masked + (1 - R) causal; what either forbids with a weight above 0 is forbidden."""
    weight = self.mixture[:, None, None]
    return _weighted(weight, masked) + _weighted(1 - weight, causal)

  def num_accepted(
    self,
    draft: Int[Array, "B W"],
    masked: Float[Array, "B W V"],
    causal: Float[Array, "B W V"],
    noise: Float[Array, "B W V"],
    rules: Rules,
  ) -> Int[Array, " B"]:
    """Returns the length of the prefix of drafts that is accepted, at least 1.

    `masked` and `causal` are the models' logits as they are; `causal[:, 0]` is not read.
    """
    chosen = sample_with(process(self.mixed(masked, causal), rules), noise)
    agrees: Bool[Array, "B W"] = (chosen == draft).at[:, 0].set(True)
    return jnp.sum(jnp.cumprod(agrees.astype(jnp.int32), axis=1), axis=1, dtype=jnp.int32)


def gumbel_noise(keys: Key[Array, "B W"], vocab: int) -> Float[Array, "B W V"]:
  """Returns Gumbel noise for each token, of high precision: the default stops at 15.94."""

  def one(key):
    return jax.random.gumbel(key, (vocab,), jnp.float32, mode="high")

  return jax.vmap(jax.vmap(one))(keys)


def sample_with(logits: Float[Array, "B W V"], noise: Float[Array, "B W V"]) -> Int[Array, "B W"]:
  """Returns samples of softmax(logits) by this noise: the same for distributions that are alike."""
  return argmax(logits + noise)


def _weighted(weight: Float[Array, "B 1 1"], logits: Float[Array, "B W V"]):
  # 0 times -inf would be NaN.
  return jnp.where(weight > 0, weight * logits, 0.0)
