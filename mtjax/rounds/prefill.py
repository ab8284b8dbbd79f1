"""The prefill: prompts are committed to a cache in chunks, for target and draft models alike."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

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

  def rows(begin, chunk):
    return jnp.clip(length - 1 - begin, 0, chunk - 1)[:, None]

  def keep_last(last_logits, begin, chunk, logits):
    final = length - 1 - begin
    ends = ((final >= 0) & (final < chunk))[:, None, None]
    return jnp.where(ends, logits, last_logits)

  logits = jnp.zeros((prompt.shape[0], 1, model.config.vocab_size), jnp.float32)
  return fold_prompt(model, params, prompt, length, capacity, rows, keep_last, logits)


def fold_prompt(
  model: Model,
  params: Params,
  prompt: Int[Array, "B P"],
  length: Int[Array, " B"],
  capacity: int,
  rows: Callable[[Int[Array, ""], int], Int[Array, "B R"]],
  fold: Callable[[PyTree, Int[Array, ""], int, Float[Array, "B R V"]], PyTree],
  initial: PyTree,
) -> tuple[KVCache, PyTree]:
  """Returns a cache that holds the prompts, and what `fold` makes of the logits, chunk by chunk.

  `rows(begin, chunk)` says for which entries of the chunk at `begin` logits are computed, and
  `fold(value, begin, chunk, logits)` returns the next value, from `initial` on. prompt is padded on
  the right; a chunk has `PREFILL_CHUNK` entries at most.
  """
  batch, size = prompt.shape
  chunk = min(size, PREFILL_CHUNK)
  padded = jnp.pad(prompt, ((0, 0), (0, -size % chunk)))
  path = jnp.broadcast_to(jnp.arange(chunk), (batch, chunk))

  def part(index, carry):
    cache, value = carry
    begin = index * chunk
    token = jax.lax.dynamic_slice_in_dim(padded, begin, chunk, axis=1)
    here = jnp.clip(length - begin, 0, chunk)
    frontier = frontier_lib.causal(token, start=begin, length=here)
    # The first chunk sees nothing committed: no attention over an empty cache.
    output = model.forward(params, frontier, None if size == chunk else cache, rows(begin, chunk))
    cache = cache.commit(output.kv, frontier.position, path, here)
    return cache, fold(value, begin, chunk, output.logits)

  start = (model.allocate(batch, capacity), initial)
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
