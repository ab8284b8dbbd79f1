"""Drawing the children of a node from a draft law, in one shot."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mtjax.sampling.categorical import argmax, sample_categorical, sample_categorical_each, top_k
from mtjax.types import DraftScheme


def likeliest(
  logits: Float[Array, "B I V"], k: int
) -> tuple[Int[Array, "B I C"], Bool[Array, "B I C"]]:
  """The `k` best tokens, the lowest id of equals first; -inf is no token."""
  score, token = top_k(logits, k)
  return token, score > -jnp.inf


def siblings(
  scheme: DraftScheme,
  logits: Float[Array, "B I V"],
  q: Float[Array, "B I V"],
  count: Sequence[int],
  keys: Key[Array, " B"],
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
  k = max(count)
  if scheme is DraftScheme.WITH_REPLACEMENT:
    shape = (*logits.shape[:2], k, logits.shape[-1])
    copies = jnp.broadcast_to(logits[:, :, None], shape)
    token = _if_warm(warm, jax.vmap(sample_categorical)(copies, keys), lambda: top_k(logits, k)[1])
    return _with_positive_probs(q, token)
  if scheme is DraftScheme.GREEDY_PLUS_ONE:
    return _greedy_plus_one(logits, q, count, keys, warm)
  drawn = jax.vmap(lambda logits, key: sample_categorical_each(logits, key, k))(logits, keys)
  drawn = _if_warm(warm, drawn, lambda: top_k(logits, k)[1])
  if scheme is DraftScheme.WITHOUT_REPLACEMENT:
    return _with_positive_probs(q, drawn)
  if scheme is DraftScheme.PAIR:
    return _pair(q, drawn, k)
  raise ValueError(f"siblings are not drawn {scheme.value}: use likeliest")


def _if_warm(warm, drawn, likeliest):
  """`drawn` in warm rows; what `likeliest` gives, asked only if there are others, in those."""
  row = warm.reshape(-1, *(1,) * (drawn.ndim - 1))
  return jax.lax.cond(jnp.all(warm), lambda: drawn, lambda: jnp.where(row, drawn, likeliest()))


def _with_positive_probs(q, token):
  return token, jnp.take_along_axis(q, token, axis=-1) > 0


def _pair(q, drawn, k):
  # The verifier's own choice of the likeliest: logits that differ may be equal in q.
  hub = argmax(q)
  if k == 1:
    return _with_positive_probs(q, drawn)
  # Of two draws without replacement the second is one from the others.
  second = jnp.where(drawn[..., 0] == hub, drawn[..., 1], hub)
  return _with_positive_probs(q, jnp.stack([drawn[..., 0], second], axis=-1))


def _greedy_plus_one(logits, q, count, keys, warm):
  k = max(count)
  top = top_k(logits, k)[1]
  last = np.asarray(count)[:, None] - 1
  fixed = jnp.arange(k) < last
  batch, node = jnp.ogrid[: q.shape[0], : q.shape[1]]
  used = jnp.where(fixed, top, q.shape[2])
  left = logits.at[batch[..., None], node[..., None], used].set(-jnp.inf, mode="drop")
  drawn = _if_warm(warm, jax.vmap(sample_categorical)(left, keys), lambda: argmax(left))
  token, valid = _with_positive_probs(q, jnp.where(jnp.arange(k) == last, drawn[..., None], top))
  return token, valid & (fixed | (jnp.max(left, axis=-1, keepdims=True) > -jnp.inf))
