"""The exact cache of any-subset models: decided tokens see earlier decided ones, and no mask."""

import dataclasses

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from mtjax import frontier as frontier_lib
from mtjax.anysubset.canvas import (
  context_rank,
  draft_entries,
  has_query,
  num_sinks,
  query_token,
  sink_token,
)
from mtjax.cache import KVCache
from mtjax.diffusion.denoising.caches import canvas_keys
from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job
from mtjax.models import Params
from mtjax.types import Exactness


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
  are ranked by position. Who else sees whom is the model's way (`any_subset_rows` of its config):
  in an any-subset model with queries (2504.20456) prompts' tokens all see each other, in Set
  Diffusion (2607.01775) and Eso-LM (B) (2506.01928) those before them; a mask sees no mask but
  itself, and in Eso-LM those before it too, so that its logits depend on the masks of its pass.
  Eso-LM orders them at random; here they are in order of positions (`Eso` of
  `mtjax.anysubset.filling.masks.eso` has its own order).

  The logits are those of all tokens and masks computed at once in the order of decisions. They are
  a distribution over orders and texts: where confidence chooses the order, tokens depend on the
  order too. Tokens must stay as they were decided, because keys that were committed are final:
  rules that revise are refused. A model's sink stands before the canvas, and is no position of it.
  """

  exactness = Exactness.LOSSLESS
  reason = ""
  needs_final = True
  reads_layers = False

  def check(self, network: MaskedNetwork) -> None:
    config = network.model.config
    if config.predicts != "any_subset":
      raise ValueError(
        "the any-order cache is for any-subset models, whose decided tokens see no masks; this one "
        f"predicts {config.predicts!r}"
      )
    if network.block_length or network.shifted:
      raise ValueError(
        "an any-subset model has no blocks, and its masks predict their own positions: "
        "block_length must be 0 and shifted False"
      )
    if not has_query(config) or network.mask_id != query_token(config):
      raise ValueError(
        "the masks of an any-subset model are its queries: mask_id must be the id of its query "
        f"embedding, got {network.mask_id}"
      )

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> AnyOrderState:
    config = network.model.config
    batch, size = job.prompt.shape
    sink = sink_token(config)
    token = job.prompt
    if sink is not None:
      token = jnp.pad(token, ((0, 0), (1, 0)), constant_values=sink)
    index = jnp.broadcast_to(jnp.arange(token.shape[1]), token.shape)
    count = job.start + num_sinks(config)
    rank = context_rank(config, index, count[:, None])
    frontier = frontier_lib.content(token, index, rank, valid=index < count[:, None])
    none = jnp.zeros((batch, 0), jnp.int32)
    output = network.model.forward(params, frontier, None, none)
    kv = network.model.allocate(batch, token.shape[1]).commit(output.kv, index, index, count)
    return AnyOrderState(kv, jnp.arange(size) < job.start[:, None])

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: AnyOrderState, now: Pass
  ) -> tuple[Float[Array, "B W V"], AnyOrderState]:
    config = network.model.config
    inside = jnp.arange(job.size) < job.end[:, None]
    decided = inside & ((now.token != network.mask_id) | cache.known)
    new = decided & ~cache.known & now.active[:, None]
    # At most a block is decided in a pass, and a pass computes what the one before it decided.
    width = now.window.index.shape[1]
    index, valid = canvas_keys.chosen(new, width)
    token = jnp.take_along_axis(now.token, index, axis=1)
    rank = jnp.broadcast_to(jnp.arange(width), index.shape)
    first = num_sinks(config)
    contents = frontier_lib.content(token, index + first, rank, valid=valid)
    open_ = now.window.inside & ~now.window.read(decided)
    last = jnp.full_like(now.window.index, width)
    queries = draft_entries(config, now.window.index + first, last, open_)
    frontier = frontier_lib.concatenate(contents, queries)
    output = network.model.forward(params, frontier, cache.kv, width + rank)
    count = jnp.sum(valid, axis=1, dtype=jnp.int32)
    kv = cache.kv.commit(output.kv, frontier.position, rank, count)
    return network.logits(output), AnyOrderState(kv, cache.known | new)
