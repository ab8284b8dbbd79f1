"""Fast-dLLM's caches of bidirectional models: keys as they were when the block began."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.diffusion.denoising.caches import canvas_keys
from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.caches.shadow import PLAIN, Entries, split, with_shadow
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job
from mtjax.models import Params
from mtjax.types import Exactness, Frontier


@dataclasses.dataclass(frozen=True)
class BlockStale:
  """The first pass of a block computes the whole canvas, later ones a part of it over old keys.

  prefix (`suffix` false): later passes compute the block and all that follows it, over the keys
  that the entries before the block had in its first pass (Fast-dLLM 2505.22618, section 3.2,
  "prefix cache"). dual (`suffix` true): they compute the block alone, over the keys of all other
  entries ("DualCache"). In a bidirectional model each decided token changes all keys, so both are
  approximations, the second one the coarser.
  """

  suffix: bool = False
  exactness = Exactness.APPROXIMATE
  reason = "keys of other blocks are those of the block's first pass"
  needs_final = False
  reads_layers = False

  def check(self, network: MaskedNetwork) -> None:
    canvas_keys.check_bidirectional(network)
    if network.shifted and self.suffix:
      raise ValueError(
        "the dual cache computes the block alone, but in a model with shifted logits the entry "
        "before it predicts its first position: use the prefix cache"
      )

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> KVCache:
    return network.model.allocate(job.prompt.shape[0], job.size)

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: KVCache, now: Pass
  ) -> tuple[Float[Array, "B W V"], KVCache]:
    return self._logits(network, params, job, cache, now, PLAIN)

  def logits_with_shadow(
    self, network: MaskedNetwork, params: Params, job: Job, cache: KVCache, now: Pass
  ) -> tuple[Float[Array, "B W V"], Float[Array, "B W V"], KVCache]:
    entries = with_shadow(network, now)
    logits, cache = self._logits(network, params, job, cache, now, entries)
    return *split(logits), cache

  def _logits(
    self,
    network: MaskedNetwork,
    params: Params,
    job: Job,
    cache: KVCache,
    now: Pass,
    entries: Entries,
  ) -> tuple[Float[Array, "B R V"], KVCache]:
    fresh, later = now.active & now.fresh, now.active & ~now.fresh
    index = now.window.index
    batch, width = index.shape
    rows = width * entries.parts
    none = jnp.zeros((batch, rows, network.model.config.vocab_size), jnp.float32)

    def whole(cache: KVCache):
      frontier = network.canvas(now.token, job.end)
      frontier, rows = entries.add(frontier, index, network.sources(index))
      output = network.model.forward(params, frontier, None, rows)
      path, count = self._kept(job, now, network)
      emptied = cache.replace(length=jnp.where(fresh, 0, cache.length))
      kept = emptied.commit(output.kv, frontier.position, path, jnp.where(fresh, count, 0))
      return network.logits(output), kept

    def part(size: int):
      frontier, begin = self._part(job, now, network, size)
      # Position 0 of a shifted network is its own source, and so stands at the beginning itself.
      frontier, rows = entries.add(frontier, index - begin, network.sources(index) - begin)
      return network.logits(network.model.forward(params, frontier, cache, rows))

    # A row's logits come from its own kind of pass, whatever the others of the batch do.
    sizes = self._sizes(job, width, network)
    needed = jnp.max(jnp.where(later, job.end - self._begin(now, network), 0))
    branch = jnp.sum(needed > jnp.array([0, *sizes[:-1]]))
    passes = [lambda: none, *(functools.partial(part, size) for size in sizes)]
    stale = jax.lax.switch(branch, passes)
    new, cache = jax.lax.cond(jnp.any(fresh), whole, lambda cache: (none, cache), cache)
    return jnp.where(fresh[:, None, None], new, stale), cache

  def _begin(self, now: Pass, network: MaskedNetwork) -> Int[Array, " B"]:
    """Returns the first entry that later passes compute: its logits predict the block."""
    return network.sources(now.window.index)[:, 0]

  def _kept(self, job: Job, now: Pass, network) -> tuple[Int[Array, "B S"], Int[Array, " B"]]:
    """Returns the entries whose keys are kept, and their number."""
    begin, width = self._begin(now, network), now.window.index.shape[1]
    place = jnp.broadcast_to(jnp.arange(job.size), job.prompt.shape)
    if not self.suffix:
      return place, begin
    path = jnp.where(place < begin[:, None], place, place + width)
    # A block may reach beyond the end of a canvas whose masks are among other tokens.
    return jnp.minimum(path, job.size - 1), job.end - jnp.minimum(width, job.end - begin)

  def _sizes(self, job: Job, width: int, network: MaskedNetwork) -> list[int]:
    """Returns the numbers of entries that later passes may have, each a part of the program.

    After half of the blocks are done, half of the entries are enough.
    """
    if self.suffix:
      return [width]
    before = int(network.shifted)
    whole, half = (min(job.response_size // d + before, job.size) for d in (1, 2))
    return [half, whole] if half >= width + before else [whole]

  def _part(
    self, job: Job, now: Pass, network: MaskedNetwork, size: int
  ) -> tuple[Frontier, Int[Array, "B 1"]]:
    """Returns the entries of a later pass, and the position of the first of them."""
    begin = self._begin(now, network)[:, None]
    index = begin + jnp.arange(size)
    inside: Bool[Array, "B N"] = index < job.end[:, None]
    index = jnp.minimum(index, job.size - 1)
    token = jnp.take_along_axis(now.token, index, axis=1)
    frontier = frontier_lib.bidirectional(token)
    hi = jnp.where(inside[:, None, :], frontier.hi, frontier.lo)
    return frontier.replace(position=index, hi=hi), begin
