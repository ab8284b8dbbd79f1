"""Prefill: prompts go into a cache in chunks, for target and draft models."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.models import Model, Params

PREFILL_CHUNK = 512


def commit_prompt(
  model: Model, params: Params, prompt: Int[Array, "B P"], length: Int[Array, " B"], capacity: int
) -> tuple[KVCache, Float[Array, "B 1 V"]]:
  """Commits prompts, `PREFILL_CHUNK` entries at a time; returns the cache and the last logits.

  prompt is padded on the right, length >= 1. Logits are computed for one entry per row.
  """
  batch, size = prompt.shape
  chunk = min(size, PREFILL_CHUNK)
  padded = jnp.pad(prompt, ((0, 0), (0, -size % chunk)))
  path = jnp.broadcast_to(jnp.arange(chunk), (batch, chunk))

  def part(index, carry):
    cache, last_logits = carry
    begin = index * chunk
    token = jax.lax.dynamic_slice_in_dim(padded, begin, chunk, axis=1)
    here = jnp.clip(length - begin, 0, chunk)
    frontier = frontier_lib.causal(token, start=begin, length=here)
    final = length - 1 - begin
    rows = jnp.clip(final, 0, chunk - 1)[:, None]
    # The first chunk sees nothing committed: no attention over an empty cache.
    output = model.forward(params, frontier, None if size == chunk else cache, rows)
    cache = cache.commit(output.kv, frontier.position, path, here)
    ends = ((final >= 0) & (final < chunk))[:, None, None]
    return cache, jnp.where(ends, output.logits, last_logits)

  logits = jnp.zeros((batch, 1, model.config.vocab_size), jnp.float32)
  start = (model.allocate(batch, capacity), logits)
  return jax.lax.fori_loop(0, padded.shape[1] // chunk, part, start)
