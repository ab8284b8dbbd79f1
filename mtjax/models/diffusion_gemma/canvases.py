"""Canvases of a DiffusionGemma as frontiers, and what a pass tells the next one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax.models.diffusion_gemma.config import DiffusionGemmaConfig
from mtjax.models.linear import Embedding
from mtjax.types import Frontier


def canvas_frontier(
  token: Int[Array, "B T"],
  *,
  start: frontier_lib.Start,
  signal: Float[Array, "B T D"] | None = None,
  config: DiffusionGemmaConfig,
) -> Frontier:
  """Returns canvases that begin at position `start`, after the committed text.

  `signal` is that of `signal_of` for the logits of the last pass over them; None: this is the first
  one. No entry of a canvas may be committed: read the text again as clean entries, causally.
  """
  canvas = frontier_lib.bidirectional(token, start=start)
  none = jnp.zeros((*token.shape, config.dim), jnp.dtype(config.dtype))
  return frontier_lib.with_vectors(canvas, none if signal is None else signal)


def signal_of(
  config: DiffusionGemmaConfig, params: PyTree, logits: Float[Array, "B T V"]
) -> Float[Array, "B T D"]:
  """Returns the expected embedding of the tokens that `logits` predict."""
  table = params["embedding"]
  name = "int8" if "int8" in table else "table"
  dtype = jnp.dtype(config.dtype)
  probs = jax.nn.softmax(logits.astype(jnp.float32)).astype(dtype)
  rows = Embedding(config.vocab_size, config.dim, dtype).apply(
    {"params": table}, jnp.arange(table[name].shape[0])
  )
  return jnp.matmul(probs, rows) * jnp.asarray(config.dim**0.5, dtype)
