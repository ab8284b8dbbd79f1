"""The exact cache of a block-causal model: finished blocks are final, and so are their keys."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job, window_of
from mtjax.models import Params
from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class ExactBlocks:
  """Passes compute the current block alone, over cached blocks (BD3-LM 2503.09573, section 4).

  The keys of a block that was denoised are those of its masks: it is computed again as it became,
  in the first pass of the next block, and committed from there, so no pass is spent on it (as in
  SBD 2509.04185, section 3.3). A block's length is that of the model's blocks.
  """

  exactness = Exactness.LOSSLESS
  reason = ""
  needs_final = False
  takes_vectors = True
  reads_layers = False

  def check(self, network: MaskedNetwork) -> None:
    if not network.block_length:
      raise ValueError(
        "only a block-causal model has an exact cache: in a model whose entries all see each other "
        "every key changes with every decided token (use an approximate cache, or none)"
      )
    if network.shifted:
      raise ValueError(
        "the exact cache of blocks needs a model whose entries predict their own position: the "
        "first position of a block is predicted by the block before, which the pass lacks"
      )

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> KVCache:
    batch, size = job.prompt.shape
    frontier = network.canvas(job.prompt, job.first)
    none = jnp.zeros((batch, 0), jnp.int32)
    output = network.model.forward(params, frontier, None, none)
    path = jnp.broadcast_to(jnp.arange(size), (batch, size))
    empty = network.model.allocate(batch, size)
    return empty.commit(output.kv, frontier.position, path, job.first)

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: KVCache, now: Pass
  ) -> tuple[Float[Array, "B W V"], KVCache]:
    pending = now.active & now.fresh & (now.block > 0)
    current = _block(now.token, now.window.index, now.window.inside, stamp=1)
    current = current if now.soften is None else now.soften(current)
    every = jnp.broadcast_to(jnp.arange(current.size), current.token.shape)

    def alone(kv: KVCache):
      output = network.model.forward(params, current, kv, every)
      return network.logits(output), kv

    def after_finished(kv: KVCache):
      before = window_of(job, now.block - 1, current.size)
      inside = before.inside & pending[:, None]
      finished = _block(now.token, before.index, inside, stamp=0)
      frontier = frontier_lib.concatenate(finished, current)
      output = network.model.forward(params, frontier, kv, every + current.size)
      count = jnp.sum(inside, axis=1, dtype=jnp.int32)
      return network.logits(output), kv.commit(output.kv, frontier.position, every, count)

    return jax.lax.cond(jnp.any(pending), after_finished, alone, cache)


def _block(token, index: Int[Array, "B W"], inside, stamp: int):
  """Returns entries that see each other and those of lower stamps."""
  here = jnp.take_along_axis(token, index, axis=1)
  frontier = frontier_lib.block_causal(here, jnp.full_like(index, stamp))
  hi = jnp.where(inside[:, None, :], frontier.hi, frontier.lo)
  return frontier.replace(position=index, hi=hi)
