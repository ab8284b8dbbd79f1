"""The exact cache of any-subset models: decided tokens see earlier decided ones, and no mask."""

import dataclasses
from typing import Literal, get_args

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.diffusion.denoising.caches import canvas_keys
from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job
from mtjax.models import Params
from mtjax.types import FOREVER, Exactness, Frontier

Masks = Literal["hidden", "itself", "causal"]
Context = Literal["mutual", "causal"]


class AnyOrderState(struct.PyTreeNode):
  """The keys of decided tokens, in the order in which they were decided."""

  kv: KVCache
  known: Bool[Array, "B S"]  # positions whose keys are in the cache


@dataclasses.dataclass(frozen=True)
class AnyOrder:
  """Computes new tokens and the block's masks, over the keys of all tokens decided before.

  In these models a decided token sees the prompt and the tokens decided before it, and no mask, so
  its keys are final when it is first computed: in the pass after the one that decided it, beside
  the masks of that pass. They are kept from there, and no pass is spent on it. Tokens of one pass
  are ranked by position. What a mask sees besides all decided tokens is the model's way (`masks`):
    hidden: nothing, as in any-subset models with query entries (2504.20456);
    itself: itself, as in Set Diffusion (2607.01775);
    causal: itself and the block's masks before it, as in Eso-LM (B) (2506.01928), where the logits
      of a mask depend on the masks of its pass. Eso-LM orders them at random; here they are in
      order of positions.
  `context`: prompts' tokens all see each other ("mutual", any-subset models) or those before them
  ("causal", Set Diffusion and Eso-LM).

  The logits are those of all tokens and masks computed at once in the order of decisions. They are
  a distribution over orders and texts: where confidence chooses the order, tokens depend on the
  order too. Tokens must stay as they were decided, because keys that were committed are final:
  rules that revise are refused.
  """

  masks: Masks = "hidden"
  context: Context = "mutual"
  exactness = Exactness.LOSSLESS
  reason = ""
  needs_final = True

  def __post_init__(self):
    for name, kinds in (("masks", Masks), ("context", Context)):
      if getattr(self, name) not in get_args(kinds):
        known = ", ".join(get_args(kinds))
        raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")

  def check(self, network: MaskedNetwork) -> None:
    if network.model.config.predicts != "any_subset":
      raise ValueError(
        "the any-order cache is for any-subset models, whose decided tokens see no masks; this one "
        f"predicts {network.model.config.predicts!r}"
      )
    if network.block_length or network.shifted:
      raise ValueError(
        "an any-subset model has no blocks, and its masks predict their own positions: "
        "block_length must be 0 and shifted False"
      )

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> AnyOrderState:
    batch, size = job.prompt.shape
    index = jnp.broadcast_to(jnp.arange(size), (batch, size))
    rank = jnp.zeros_like(index) if self.context == "mutual" else index
    known = index < job.start[:, None]
    frontier = frontier_lib.content(job.prompt, index, rank, valid=known)
    none = jnp.zeros((batch, 0), jnp.int32)
    output = network.model.forward(params, frontier, None, none)
    kv = network.model.allocate(batch, size).commit(output.kv, index, index, job.start)
    return AnyOrderState(kv, known)

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: AnyOrderState, now: Pass
  ) -> tuple[Float[Array, "B W V"], AnyOrderState]:
    inside = jnp.arange(job.size) < job.end[:, None]
    decided = inside & ((now.token != network.mask_id) | cache.known)
    new = decided & ~cache.known & now.active[:, None]
    # At most a block is decided in a pass, and a pass computes what the one before it decided.
    width = now.window.index.shape[1]
    index, valid = canvas_keys.chosen(new, width)
    token = jnp.take_along_axis(now.token, index, axis=1)
    rank = jnp.broadcast_to(jnp.arange(width), index.shape)
    contents = frontier_lib.content(token, index, rank, valid=valid)
    open_ = now.window.inside & ~now.window.read(decided)
    queries = self._queries(network, now, open_, rank=width)
    frontier = frontier_lib.concatenate(contents, queries)
    output = network.model.forward(params, frontier, cache.kv, width + rank)
    count = jnp.sum(valid, axis=1, dtype=jnp.int32)
    kv = cache.kv.commit(output.kv, frontier.position, rank, count)
    return network.logits(output), AnyOrderState(kv, cache.known | new)

  def _queries(self, network: MaskedNetwork, now: Pass, open_, rank: int) -> Frontier:
    """Returns the block's masks: each sees contents of lower rank, and others as `masks` says."""
    index = now.window.index
    token = jnp.full_like(index, network.mask_id)
    queries = frontier_lib.query(token, index, jnp.full_like(index, rank))
    if self.masks == "hidden":
      return queries
    own = jnp.ones_like(index, bool)
    if self.masks == "itself":
      return queries.replace(own=own)
    stamp = queries.stamp + jnp.arange(index.shape[1])
    hi = jnp.where(open_[:, None, :], FOREVER, stamp)
    return queries.replace(stamp=stamp, lo=stamp, hi=hi, own=own)
