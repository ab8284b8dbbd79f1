"""A draft model keeps up with the text: it reads what its cache lacks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.draft.text_buffer import TextBuffer
from mtjax.models import Model, Params

# Entries read at a time after rounds in which the drafter was not used.
_CATCH_UP = 8


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


def catch_up(
  model: Model, params: Params, cache: KVCache, text: TextBuffer
) -> tuple[KVCache, Float[Array, "B 1 V"]]:
  """Reads the text that the cache lacks; returns the logits after the last token.

  From round to round that is one token, or two when the last draft was accepted and never read:
  those are read in one small pass.
  """

  def tail(cache, size):
    place = cache.length[:, None] + jnp.arange(size)
    return jnp.take_along_axis(text.token, place, axis=1, mode="clip")

  def read_on(cache):
    count = jnp.clip(text.length - cache.length - 1, 0, _CATCH_UP)
    return read(model, params, cache, tail(cache, _CATCH_UP), count)[0]

  cache = jax.lax.while_loop(lambda cache: jnp.any(text.length - cache.length > 2), read_on, cache)
  return read(model, params, cache, tail(cache, 2), text.length - cache.length)
