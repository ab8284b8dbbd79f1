"""Losses as functions of logits and labels, which return a sum and a weight."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Total(NamedTuple):
  """A weighted sum and its weight: totals add up over parts of a batch, means do not."""

  sum: Float[Array, ""]
  weight: Float[Array, ""]
  parts: dict[str, Float[Array, ""]] | None = None  # other sums with this weight, for reports


def next_token(
  logits: Float[Array, "B L V"], targets: Int[Array, "B L"], weight: Float[Array, "B L"]
) -> Total:
  """Returns the cross-entropy, in nats, of targets[b, i] under softmax(logits[b, i]), in float32.

  An entry of weight 0 does not count, whatever its target is. The mean over a packed batch is
  sum / weight: a long document weighs more than a short one, as in one long text.
  """
  logits = logits.astype(jnp.float32)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  nats = jax.nn.logsumexp(logits, axis=-1) - chosen
  weight = weight.astype(jnp.float32)
  return Total(jnp.sum(jnp.where(weight > 0, nats * weight, 0.0)), jnp.sum(weight))
