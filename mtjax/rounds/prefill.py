"""The prefill: prompts are committed to a cache in chunks, for target and draft models alike."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.models import Model, Params

PREFILL_CHUNK = 512
# Entries per forward pass of what follows a text that is committed already, such as one turn of a
# chat: few are padding, and the number of passes costs no compilation.
REST_CHUNK = 32


def commit_prompt(
  model: Model, params: Params, prompt: Int[Array, "B P"], length: Int[Array, " B"], capacity: int
) -> tuple[KVCache, Float[Array, "B 1 V"]]:
  """Returns a cache that holds the prompts, and the logits after the last token of each.

  A forward pass reads `PREFILL_CHUNK` entries at most. prompt is padded on the right, length >= 1.
  Logits are computed for one entry per row.
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


def commit_rest(
  model: Model, params: Params, prompt: Int[Array, "B P"], length: Int[Array, " B"], cache: KVCache
) -> tuple[KVCache, Float[Array, "B 1 V"]]:
  """Returns what `commit_prompt` does, for a cache that holds the beginning of each prompt.

  At least the last token of a prompt must be missing in it. A forward pass reads `REST_CHUNK`
  entries at most.
  """
  batch, size = prompt.shape
  chunk = min(size, REST_CHUNK)

  def part(carry):
    cache, last_logits = carry
    place = cache.length[:, None] + jnp.arange(chunk)
    token = jnp.take_along_axis(prompt, place, axis=1, mode="clip")
    count = jnp.clip(length - cache.length, 0, chunk)
    cache, logits = read(model, params, cache, token, count)
    return cache, jnp.where((count > 0)[:, None, None], logits, last_logits)

  logits = jnp.zeros((batch, 1, model.config.vocab_size), jnp.float32)
  return jax.lax.while_loop(lambda carry: jnp.any(length > carry[0].length), part, (cache, logits))


def read(
  model: Model,
  params: Params,
  cache: KVCache,
  token: Int[Array, "B T"],
  count: Int[Array, " B"],
) -> tuple[KVCache, Float[Array, "B 1 V"]]:
  """Commits token[b, :count[b]] and returns the logits after the last of them."""
  frontier = frontier_lib.causal(token, start=cache.length, length=count)
  rows = jnp.maximum(count - 1, 0)[:, None]
  output = model.forward(params, frontier, cache, rows)
  path = jnp.broadcast_to(jnp.arange(token.shape[1]), token.shape)
  return cache.commit(output.kv, frontier.position, path, count), output.logits
