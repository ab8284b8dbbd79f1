"""Sampling the children of a node by a draft scheme, all at once."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mtjax.sampling.categorical import argmax, sample_categorical, sample_categorical_each, top_k
from mtjax.types import DraftScheme


def top_k_siblings(
  logits: Float[Array, "B I V"], k: int
) -> tuple[Int[Array, "B I C"], Bool[Array, "B I C"]]:
  """Returns the top k tokens per node, the lowest id of equals first, and which are not -inf."""
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
  """Returns the children of I nodes in sampling order, and which exist; up to count[i] for node i.

  q: softmax(logits), which verifiers will use. keys [B]: none may be used twice. Rows that are not
  `warm` get a node's top tokens, without noise. These are possible samples of every scheme, so a
  verifier that is exact for it is exact for their one-hot target too, the only one they may meet.

  WITH_REPLACEMENT: independent samples. WITHOUT_REPLACEMENT: Gumbel top-k, whose order is that of
  sampling one after the other (Sequoia, 2402.12374); once q runs out there are no more.
  GREEDY_PLUS_ONE: the top count[i] - 1, then a sample from the others (2502.18779). PAIR: x_1
  from q; then a sample from the others if x_1 is the argmax, else the argmax (SpecHub).
  Raises ValueError for DELTA: `top_k_siblings` needs neither q nor keys.
  """
  k = max(count)
  if scheme is DraftScheme.WITH_REPLACEMENT:
    shape = (*logits.shape[:2], k, logits.shape[-1])
    copies = jnp.broadcast_to(logits[:, :, None], shape)
    token = _if_warm(warm, jax.vmap(sample_categorical)(copies, keys), lambda: top_k(logits, k)[1])
    return _with_positive_probs(q, token)
  if scheme is DraftScheme.GREEDY_PLUS_ONE:
    return _greedy_plus_one(logits, q, count, keys, warm)
  sampled = jax.vmap(lambda logits, key: sample_categorical_each(logits, key, k))(logits, keys)
  sampled = _if_warm(warm, sampled, lambda: top_k(logits, k)[1])
  if scheme is DraftScheme.WITHOUT_REPLACEMENT:
    return _with_positive_probs(q, sampled)
  if scheme is DraftScheme.PAIR:
    return _pair(q, sampled, k)
  raise ValueError(f"siblings of scheme {scheme.value} are not sampled: use top_k_siblings")


def _if_warm(warm, sampled, best):
  """Returns `sampled` in warm rows and `best()` in others; `best` runs only if there are others."""
  row = warm.reshape(-1, *(1,) * (sampled.ndim - 1))
  return jax.lax.cond(jnp.all(warm), lambda: sampled, lambda: jnp.where(row, sampled, best()))


def _with_positive_probs(q, token):
  return token, jnp.take_along_axis(q, token, axis=-1) > 0


def _pair(q, sampled, k):
  # The same choice of the argmax as the verifier's: logits that differ may be equal in q.
  hub = argmax(q)
  if k == 1:
    return _with_positive_probs(q, sampled)
  # The second of two samples without replacement is a sample from the others.
  second = jnp.where(sampled[..., 0] == hub, sampled[..., 1], hub)
  return _with_positive_probs(q, jnp.stack([sampled[..., 0], second], axis=-1))


def _greedy_plus_one(logits, q, count, keys, warm):
  k = max(count)
  top = top_k(logits, k)[1]
  last = np.asarray(count)[:, None] - 1
  fixed = jnp.arange(k) < last
  batch, node = jnp.ogrid[: q.shape[0], : q.shape[1]]
  used = jnp.where(fixed, top, q.shape[2])
  left = logits.at[batch[..., None], node[..., None], used].set(-jnp.inf, mode="drop")
  sampled = _if_warm(warm, jax.vmap(sample_categorical)(left, keys), lambda: argmax(left))
  token, valid = _with_positive_probs(q, jnp.where(jnp.arange(k) == last, sampled[..., None], top))
  return token, valid & (fixed | (jnp.max(left, axis=-1, keepdims=True) > -jnp.inf))
