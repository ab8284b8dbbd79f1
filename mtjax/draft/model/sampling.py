"""A draft model's next token, one after the other."""

import jax
from jaxtyping import Array, Float, Int, Key

from mtjax.sampling.categorical import argmax, sample_categorical
from mtjax.sampling.logits import Rules, adjusted, process


def sample_draft(
  logits: Float[Array, "B V"], rules: Rules, keys: Key[Array, " B"]
) -> tuple[Int[Array, " B"], Float[Array, "B V"] | None]:
  """A token a row and the law it is drawn from; None where it is the likeliest of every row.

  keys [B]: of one place of those that `draft_keys` gives, none used twice.
  """
  if rules.temperature is None:
    return argmax(adjusted(logits[:, None], rules)[:, 0]), None
  processed = process(logits[:, None], rules)[:, 0]
  return jax.vmap(sample_categorical)(processed, keys), jax.nn.softmax(processed, axis=-1)
