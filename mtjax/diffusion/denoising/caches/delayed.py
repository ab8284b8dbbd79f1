"""dKV-Cache of bidirectional models: keys of decided tokens, kept from one pass after that."""

import dataclasses
import itertools
import math

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from mtjax.cache import KVCache
from mtjax.diffusion.denoising.caches import canvas_keys
from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job
from mtjax.models import Params
from mtjax.types import Exactness


class DelayedState(struct.PyTreeNode):
  """Keys of canvases, and the tokens that they are keys of."""

  kv: KVCache
  token: Int[Array, "B S"]  # the token whose key is kept; -1: the key is not kept
  passes: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Delayed:
  """Keeps a token's key from the pass after the one that decided it (dKV-Cache 2505.15781).

  A pass computes the masks and the tokens that the pass before decided, over the keys of the other
  tokens ("dKV-Cache-Decode", section 3.3): an entry changes much in the pass after it was decided,
  and little later. Every `every` passes all is computed anew (cache_reloading_step). A token that
  was changed or masked again is computed again.

  A program has few static sizes: `shares` of the canvas, ascending. A pass has the smallest of them
  that holds the entries of every row; a row that needs more than the largest computes its whole
  canvas, which is exact. So rows with many masks have no gain yet: in LLaDA all blocks are masks at
  first.

  A kept token has no logits of its own. Here it has those of certainty, so rules that revise
  decided tokens leave it alone until the next refresh. In a model with shifted logits the entry
  before a mask is always computed, as it predicts it.
  """

  every: int = 8
  shares: tuple[float, ...] = (0.25, 0.5)
  exactness = Exactness.APPROXIMATE
  reason = "keys of decided tokens are those of the pass after their decision"
  needs_final = False
  reads_layers = False

  def __post_init__(self):
    canvas_keys.check_count(self.every, "every", 1)
    if not isinstance(self.shares, tuple) or not self.shares:
      raise ValueError(f"shares must be a tuple of at least one number, got {self.shares!r}")
    for share in self.shares:
      canvas_keys.check_share(share, "a share of the canvas")
    if any(a >= b for a, b in itertools.pairwise(self.shares)):
      raise ValueError(f"shares must be ascending, got {self.shares}")

  def check(self, network: MaskedNetwork) -> None:
    canvas_keys.check_bidirectional(network)

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> DelayedState:
    none = jnp.full(job.prompt.shape, -1, jnp.int32)
    return DelayedState(canvas_keys.allocate(network, job), none, jnp.zeros((), jnp.int32))

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: DelayedState, now: Pass
  ) -> tuple[Float[Array, "B W V"], DelayedState]:
    place, index = jnp.arange(job.size), now.window.index
    inside = place < job.end[:, None]
    masked = inside & (place >= job.start[:, None]) & (now.token == network.mask_id)
    wanted = inside & (cache.token != now.token)
    if network.shifted:
      wanted |= inside & jnp.pad(masked[:, 1:], ((0, 0), (0, 1)))
    sizes = tuple(math.ceil(share * job.size) for share in self.shares)
    needed = jnp.sum(wanted, axis=1)
    whole = (cache.passes % self.every == 0) | (needed > sizes[-1])
    logits, kv = canvas_keys.compute(
      network, params, job, cache.kv, now, whole=whole, wanted=wanted, sizes=sizes
    )
    computed = wanted | whole[:, None]
    known = jnp.take_along_axis(computed, network.sources(index), axis=1)
    own = jnp.take_along_axis(now.token, index, axis=1)
    certain = jnp.arange(logits.shape[-1]) == own[:, :, None]
    logits = jnp.where(known[:, :, None], logits, jnp.where(certain, 0.0, -jnp.inf))
    token = jnp.where(inside & ~masked, now.token, -1)
    token = jnp.where(now.active[:, None], token, cache.token)
    return logits, DelayedState(kv, token, cache.passes + 1)
