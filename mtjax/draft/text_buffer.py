"""The text so far, for drafters that look back at it."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int


class TextBuffer(struct.PyTreeNode):
  """Prompt and output of each row."""

  token: Int[Array, "B C"]
  length: Int[Array, " B"]

  @classmethod
  def of_prompt(
    cls, prompt: Int[Array, "B P"], length: Int[Array, " B"], max_new: int
  ) -> "TextBuffer":
    """Returns the prompts, with space for `max_new` tokens more per row."""
    return cls(jnp.pad(prompt, ((0, 0), (0, max_new))), length)

  def append(self, token: Int[Array, "B P"], count: Int[Array, " B"]) -> "TextBuffer":
    """Returns the buffer with token[b, :count[b]] appended to row b."""
    source = jnp.arange(self.token.shape[1]) - self.length[:, None]
    moved = jnp.take_along_axis(token, jnp.clip(source, 0, token.shape[1] - 1), axis=1)
    new = (source >= 0) & (source < count[:, None])
    return TextBuffer(jnp.where(new, moved, self.token), self.length + count)
