"""One tiny masked network that the tests of the denoising loop share."""

import jax
import jax.numpy as jnp

from mtjax import frontier as frontier_lib
from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.models import Model, TransformerConfig, uniform_layers

V, MASK = 11, 10  # the mask is an id of the vocabulary, as in LLaDA
CONFIG = TransformerConfig(
  vocab_size=V,
  dim=8,
  heads=2,
  kv_heads=1,
  head_dim=4,
  mlp_dim=16,
  layers=uniform_layers(2),
  max_position=64,
  predicts="masked",
)
MODEL = Model(CONFIG)
# Larger weights than those of initialisation, so that tokens differ and some are probable.
PARAMS = jax.tree.map(lambda x: 4 * x, MODEL.init(jax.random.key(0)))
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 1]]
WHOLE = MaskedNetwork(MODEL, MASK)
BLOCKS = MaskedNetwork(MODEL, MASK, block_length=4)


@jax.jit
def logits_of(token):
  """Returns the logits of whole canvases, without a chance for the mask."""
  return MODEL.forward(PARAMS, frontier_lib.bidirectional(token)).logits.at[..., MASK].set(-jnp.inf)
