"""Drafts that are compared with a text that was decoded without them."""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Int

from mtjax.draft.text_buffer import TextBuffer
from mtjax.types import Draft


@runtime_checkable
class DraftsOfText(Protocol):
  """A drafter whose drafts follow from the text alone, and whose state is the text."""

  @property
  def height(self) -> int: ...

  @property
  def breadth(self) -> int: ...

  def after(self, text: TextBuffer) -> Draft:
    """Returns what is drafted behind each text."""
    ...


def right_drafts(drafter: DraftsOfText, text: TextBuffer, window: int) -> Int[Array, "B W"]:
  """Returns how many drafts of a chain are the text's own tokens, behind each of its last places.

  [b, w] is of the drafts behind the first length[b] - window + w tokens of row b, up to the first
  wrong one. Drafts behind the end of the text are not right, nor is any behind an empty text.
  """
  rows, size = text.token.shape
  length = text.length[:, None] - window + jnp.arange(window)
  behind = jnp.maximum(length, 1)[:, :, None]
  # A draft must not see what comes later.
  token = jnp.where(jnp.arange(size) < behind, text.token[:, None], 0)
  tree = drafter.after(TextBuffer(token.reshape(-1, size), behind.reshape(-1))).tree
  place = length[:, :, None] + jnp.arange(drafter.height)
  true = jnp.take_along_axis(text.token[:, None], jnp.clip(place, 0, size - 1), axis=2)
  drafted, valid = (x[:, 1:].reshape(place.shape) for x in (tree.token, tree.valid))
  right = valid & (drafted == true) & (place < text.length[:, None, None])
  right &= length[:, :, None] > 0
  return jnp.sum(jnp.cumprod(right, axis=2), axis=2).astype(jnp.int32)
