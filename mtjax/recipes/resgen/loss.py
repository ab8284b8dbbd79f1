"""The loss of ResGen: the bound of the masked depths' sum of embeddings at a random time."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mtjax.models import Params
from mtjax.recipes.resgen.masking import mask_counts, sample_counts
from mtjax.recipes.resgen.network import ResGenConfig, predict
from mtjax.recipes.resgen.quantizer import ResidualQuantizer


def resgen_loss(
  config: ResGenConfig,
  quantizer: ResidualQuantizer,
  params: Params,
  tokens: Int[Array, "B L D"],
  label: Int[Array, " B"],
  key: Key[Array, ""],
) -> Float[Array, ""]:
  """Returns the mean of -bound(z_i) over the positions with masked codes, in nats per position.

  z_i is the sum of the embeddings of the k_i deepest codes; times are spread over the rows. It is
  a density of vectors, not a probability of codes: its value may be negative.
  """
  time_key, mask_key = jax.random.split(key)
  rows = tokens.shape[0]
  times = (jax.random.uniform(time_key) + jnp.arange(rows) / rows) % 1
  n = mask_counts(times, config.tokens)
  counts = sample_counts(mask_key, n, length=config.length, depth=config.depth)
  border = config.depth - counts
  mixture = predict(config, params, quantizer.embed(tokens, 0, border), counts, label)
  bound = mixture.bound(quantizer.embed(tokens, border))
  return -jnp.sum(bound * (counts > 0)) / jnp.sum(counts > 0)
