"""The conditionals of a masked diffusion model, for estimates of its likelihood."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtjax import frontier as frontier_lib
from mtjax import hosts
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.likelihood.conditionals import Conditionals
from mtjax.models import Params
from mtjax.rounds.placement import Placement
from mtjax.sharding import MeshLike, on_mesh


def network_conditionals(
  network: MaskedNetwork,
  params: Params,
  token: Int[np.ndarray, " S"],
  *,
  context: int = 0,
  batch: int = 64,
  length: int | None = None,
  mesh: MeshLike = None,
) -> Conditionals:
  """Returns log p(x_i | clean tokens) of masked i, for masks of the last L tokens of one text.

  The first `context` tokens are given: masks leave them clean. A shifted network has at least one
  such token, as there is no entry before the first, so that L = S - max(context, 1) there.

  In a block-causal network, clean tokens are those of an entry's own block and all tokens of the
  blocks before it: noisy and clean entries go through one pass, as in training (BD3-LM 2503.09573,
  sec. 3.2). Passes take `batch` maskings at a time; texts share one compilation if they are padded
  to the same `length` (None: they are not padded). `mesh` is that of
  `mtjax.diffusion.denoising.denoise`: maskings are its rows.

  Raises ValueError for tokens outside the vocabulary, masks among them, and texts that are too
  short or too long.
  """
  token, config = np.asarray(token, np.int32), network.model.config
  context = max(context, int(network.shifted))
  if token.ndim != 1 or token.size <= context:
    raise ValueError(
      f"one text of more than {context} tokens is needed, which are context: got the shape "
      f"{token.shape}"
    )
  if token.min() < 0 or token.max() >= config.vocab_size or (token == network.mask_id).any():
    raise ValueError(f"tokens must be within 0..{config.vocab_size - 1}, and no masks")
  length = token.size if length is None else length
  if not token.size <= length <= config.max_position:
    raise ValueError(
      f"the text has {token.size} tokens, length is {length}, and the model has "
      f"{config.max_position} positions: they must rise"
    )
  padded = np.pad(token, (0, length - token.size))
  placement = Placement.of(mesh, config, batch).beside(params)
  (params,) = placement.put((params,))

  def conditionals(masks: Bool[np.ndarray, "N L"]) -> Float[np.ndarray, "N L"]:
    masks = np.pad(masks, ((0, 0), (context, length - token.size)))
    out = []
    for first in range(0, len(masks), batch):
      # The last batch repeats rows to be full: all batches share one compilation.
      index = np.resize(np.arange(first, min(first + batch, len(masks))), batch)
      inputs = placement.put((params, masks[index]))
      with on_mesh(placement.mesh):
        if not first:
          hosts.compile_together(_log_probs, network, *inputs, padded, token.size)
        part = hosts.whole(_log_probs(network, *inputs, padded, token.size))
      out.append(part.astype(np.float64)[: min(batch, len(masks) - first)])
    return np.concatenate(out)[:, context : token.size]

  return conditionals


def block_of(network: MaskedNetwork, size: int, context: int = 0) -> Int[np.ndarray, " L"] | None:
  """Returns the number of the block of each token that masks are of; None without blocks.

  Blocks that are all context do not count: numbers begin with the first other one.
  """
  if not network.block_length:
    return None
  block = np.arange(max(context, int(network.shifted)), size) // network.block_length
  return block - block[0]


@functools.partial(jax.jit, static_argnames="network")
def _log_probs(network: MaskedNetwork, params, masks, token, end) -> Float[Array, "N S"]:
  size, noisy = token.shape[0], jnp.where(masks, network.mask_id, token)
  place = jnp.broadcast_to(jnp.arange(size), noisy.shape)
  source = network.sources(place)
  if network.block_length:
    clean, block = jnp.broadcast_to(token, noisy.shape), place // network.block_length
    # Padding is a later block, which no token sees.
    seen = jnp.where(place < end, block, size)
    frontier = frontier_lib.block_diffusion(noisy, clean, seen)
    # The entry before a block is a clean one.
    source = jnp.where(source // network.block_length < block, source + size, source)
  else:
    frontier = network.canvas(noisy, jnp.full(len(noisy), end))
  logits = network.logits(network.model.forward(params, frontier, rows=source))
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  index = jnp.broadcast_to(token, noisy.shape)[..., None]
  chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), index, axis=2)[..., 0]
  return jnp.where(masks, chosen, 0)
