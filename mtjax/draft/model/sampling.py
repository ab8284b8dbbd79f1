"""A draft model's next token, sampled for a chain."""

import jax
from jaxtyping import Array, Float, Int, Key

from mtjax.sampling.categorical import sample_categorical
from mtjax.sampling.logits import Rules, best_tokens, process
from mtjax.sharding.vocabulary import over_vocabulary


def sample_draft(
  logits: Float[Array, "B V"], rules: Rules, keys: Key[Array, " B"]
) -> tuple[Int[Array, " B"], Float[Array, "B V"] | None]:
  """Samples one token per row; returns it and its probs q, or None if all rows take the argmax.

  keys [B]: those of one place of `draft_keys`; none may be used twice.
  """
  if rules.temperature is None:
    return best_tokens(logits[:, None], rules)[:, 0], None
  processed = process(logits[:, None], rules)[:, 0]
  token = over_vocabulary(jax.vmap(sample_categorical), processed, keys, roles=("bv", "b"), out="b")
  return token, jax.nn.softmax(processed, axis=-1)
