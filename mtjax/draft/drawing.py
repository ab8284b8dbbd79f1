"""A draft model's next token, one after the other."""

import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mtjax.choice import best_token, draw_token
from mtjax.sampling import Rules, adjusted, process


def draw_draft(
  logits: Float[Array, "B V"], rules: Rules, keys: PRNGKeyArray, place: Int[Array, ""] | int
) -> tuple[Int[Array, " B"], Float[Array, "B V"] | None]:
  """A token a row and the law it is drawn from; None where it is the likeliest of every row.

  keys [B], as `draft_keys` gives, and the place of the token in the round: no two may be equal.
  """
  if rules.temperature is None:
    return best_token(adjusted(logits[:, None], rules)[:, 0]), None
  law = process(logits[:, None], rules)[:, 0]

  def one(law, key):
    return draw_token(law, jax.random.fold_in(key, place))

  return jax.vmap(one)(law, keys), jax.nn.softmax(law, axis=-1)
