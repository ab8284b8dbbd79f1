"""Drawing the children of a node from a draft law, in one shot."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mtjax.types import DraftLaw


def likeliest(
  logits: Float[Array, "B I V"], most: int
) -> tuple[Int[Array, "B I C"], Bool[Array, "B I C"]]:
  """The `most` best tokens, the lowest id of equals first; -inf is no token."""
  score, token = jax.lax.top_k(logits, most)
  return token.astype(jnp.int32), score > -jnp.inf


def siblings(
  law: DraftLaw,
  logits: Float[Array, "B I V"],
  q: Float[Array, "B I V"],
  count: Sequence[int],
  keys: PRNGKeyArray,
  warm: Bool[Array, " B"],
) -> tuple[Int[Array, "B I C"], Bool[Array, "B I C"]]:
  """Children of I nodes in draw order, and which of them there are; node i has up to count[i].

  q: softmax(logits), the law that a verifier will be told. keys [B]: none may be used twice. Rows
  that are not `warm` get a node's likeliest tokens, without noise: possible draws of every law, so
  whatever is exact for the law is exact for a one-hot target with them, the only one they may meet.

  WITH_REPLACEMENT: independent draws. WITHOUT_REPLACEMENT: Gumbel top-k, whose order is that of
  drawing one after the other (Sequoia, 2402.12374); once q runs out there are no more.
  GREEDY_PLUS_ONE: the count[i] - 1 likeliest, then a draw from the others (2502.18779). PAIR: x_1
  from q; then a draw from the others if x_1 is the likeliest token, else that token (SpecHub).
  DELTA is `likeliest`, which needs neither q nor keys: ValueError here.
  """
  most = max(count)
  if law is DraftLaw.WITH_REPLACEMENT:
    noise = _noise(keys, warm, (len(count), most, logits.shape[-1]))
    drawn = jnp.argmax(logits[:, :, None] + noise, axis=-1)
    token = jnp.where(warm[:, None, None], drawn, jax.lax.top_k(logits, most)[1])
    return _of_positive_law(q, token)
  noisy = logits + _noise(keys, warm, logits.shape[1:])
  if law is DraftLaw.WITHOUT_REPLACEMENT:
    return _of_positive_law(q, jax.lax.top_k(noisy, most)[1])
  if law is DraftLaw.PAIR:
    return _pair(q, noisy, most)
  if law is DraftLaw.GREEDY_PLUS_ONE:
    return _greedy_plus_one(logits, q, noisy, count)
  raise ValueError(f"siblings are not drawn {law.value}: use likeliest")


def _noise(keys, warm, shape):
  """Noise of high precision, as in `mtjax.sampling.draw`."""
  noise = jax.vmap(lambda key: jax.random.gumbel(key, shape, mode="high"))(keys)
  return jnp.where(warm.reshape(-1, *(1,) * len(shape)), noise, 0)


def _of_positive_law(q, token):
  return token.astype(jnp.int32), jnp.take_along_axis(q, token, axis=-1) > 0


def _pair(q, noisy, most):
  drawn = jax.lax.top_k(noisy, most)[1]
  # The verifier's own choice of the likeliest: logits that differ may be equal in q.
  hub = jnp.argmax(q, axis=-1)
  if most == 1:
    return _of_positive_law(q, drawn)
  # Of two draws without replacement the second is one from the others.
  second = jnp.where(drawn[..., 0] == hub, drawn[..., 1], hub)
  return _of_positive_law(q, jnp.stack([drawn[..., 0], second], axis=-1))


def _greedy_plus_one(logits, q, noisy, count):
  most = max(count)
  top = jax.lax.top_k(logits, most)[1]
  last = np.asarray(count)[:, None] - 1
  fixed = jnp.arange(most) < last
  batch, node = jnp.ogrid[: q.shape[0], : q.shape[1]]
  taken = jnp.where(fixed, top, q.shape[2])
  left = noisy.at[batch[..., None], node[..., None], taken].set(-jnp.inf, mode="drop")
  drawn = jnp.argmax(left, axis=-1)
  token, valid = _of_positive_law(q, jnp.where(jnp.arange(most) == last, drawn[..., None], top))
  return token, valid & (fixed | (jnp.max(left, axis=-1, keepdims=True) > -jnp.inf))
