"""A draft model keeps up with the text: it reads what its cache lacks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.cache import KVCache
from mtjax.draft.text_buffer import TextBuffer
from mtjax.models import Model, Params
from mtjax.rounds.prefill import read

# Entries read at a time after rounds in which the drafter was not used.
_CATCH_UP = 8


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
