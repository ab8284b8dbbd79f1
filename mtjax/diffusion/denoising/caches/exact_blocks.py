"""The exact cache of a block-causal model: finished blocks are final, and so are their keys."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.caches.shadow import PLAIN, Entries, split, with_shadow
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job, Window, window_of
from mtjax.models import Params
from mtjax.types import Exactness


class FinishedBlocks(NamedTuple):
  """What is kept of blocks that do not change any more."""

  kv: KVCache
  # Of a network with shifted logits: those of the last entry of these blocks, which predicts the
  # first position of the next one. None: the network is not shifted.
  following: Float[Array, "B V"] | None

  def first(
    self, logits: Float[Array, "B R V"], window: Window, place: int = 0
  ) -> Float[Array, "B R V"]:
    """Returns logits, with those of the window's first position where they stand in `place`.

    No entry stands before position 0 of a text, so its logits stay as they are given.
    """
    if self.following is None:
      return logits
    known = jnp.where(window.index[:, :1] > 0, self.following, logits[:, place])
    return logits.at[:, place].set(known)


@dataclasses.dataclass(frozen=True)
class ExactBlocks:
  """Passes compute the current block alone, over cached blocks (BD3-LM 2503.09573, section 4).

  The keys of a block that was denoised are those of its masks: it is computed again as it became,
  in the first pass of the next block, and committed from there, so no pass is spent on it (as in
  SBD 2509.04185, section 3.3). A block's length is that of the model's blocks.

  In a network with shifted logits the last entry of a block predicts the first position of the next
  one. It sees nothing of that one, so its logits are the same in all passes of it: they come from
  the pass that computes the finished block, and are kept.
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

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> FinishedBlocks:
    batch, size = job.prompt.shape
    frontier = network.canvas(job.prompt, job.first)
    last = jnp.maximum(job.first - 1, 0)[:, None]
    rows = last if network.shifted else last[:, :0]
    output = network.model.forward(params, frontier, None, rows)
    path = jnp.broadcast_to(jnp.arange(size), (batch, size))
    empty = network.model.allocate(batch, size)
    kv = empty.commit(output.kv, frontier.position, path, job.first)
    return FinishedBlocks(kv, network.logits(output)[:, 0] if network.shifted else None)

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: FinishedBlocks, now: Pass
  ) -> tuple[Float[Array, "B W V"], FinishedBlocks]:
    return self._logits(network, params, job, cache, now, PLAIN)

  def logits_with_shadow(
    self, network: MaskedNetwork, params: Params, job: Job, cache: FinishedBlocks, now: Pass
  ) -> tuple[Float[Array, "B W V"], Float[Array, "B W V"], FinishedBlocks]:
    entries = with_shadow(network, now)
    logits, cache = self._logits(network, params, job, cache, now, entries)
    return *split(logits), cache

  def _logits(
    self,
    network: MaskedNetwork,
    params: Params,
    job: Job,
    cache: FinishedBlocks,
    now: Pass,
    entries: Entries,
  ) -> tuple[Float[Array, "B R V"], FinishedBlocks]:
    window, pending = now.window, now.active & now.fresh & (now.block > 0)
    current = _block(now.token, window.index, window.inside, stamp=1)
    current = current if now.soften is None else now.soften(current)
    size = current.size
    every = jnp.broadcast_to(jnp.arange(size), current.token.shape)
    # Below 0: the source is in the block before.
    source = network.sources(window.index) - window.index[:, :1]

    def alone(cache: FinishedBlocks):
      frontier, rows = entries.add(current, every, jnp.maximum(source, 0))
      output = network.model.forward(params, frontier, cache.kv, rows)
      return network.logits(output), cache

    def after_finished(cache: FinishedBlocks):
      before = window_of(job, now.block - 1, size)
      inside = before.inside & pending[:, None]
      finished = _block(now.token, before.index, inside, stamp=0)
      frontier = frontier_lib.concatenate(finished, current)
      frontier, rows = entries.add(frontier, every + size, source + size)
      output = network.model.forward(params, frontier, cache.kv, rows)
      logits, following = network.logits(output), cache.following
      if following is not None:
        following = jnp.where(pending[:, None], logits[:, 0], following)
      count = jnp.sum(inside, axis=1, dtype=jnp.int32)
      kv = cache.kv.commit(output.kv, frontier.position, every, count)
      return logits, FinishedBlocks(kv, following)

    logits, cache = jax.lax.cond(jnp.any(pending), after_finished, alone, cache)
    for place in range(0, logits.shape[1], size):
      logits = cache.first(logits, window, place)
    return logits, cache


def _block(token, index: Int[Array, "B W"], inside, stamp: int):
  """Returns entries that see each other and those of lower stamps."""
  here = jnp.take_along_axis(token, index, axis=1)
  frontier = frontier_lib.block_causal(here, jnp.full_like(index, stamp))
  hi = jnp.where(inside[:, None, :], frontier.hi, frontier.lo)
  return frontier.replace(position=index, hi=hi)
