"""The children of nodes, all sampled at once from the draft distributions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mtjax.sampling.categorical import argmax, sample_categorical, sample_categorical_each, top_k
from mtjax.sharding import vocabulary
from mtjax.sharding.vocabulary import over_vocabulary
from mtjax.types import DraftScheme


def top_k_siblings(
  logits: Float[Array, "B I V"], k: int
) -> tuple[Int[Array, "B I C"], Bool[Array, "B I C"]]:
  """Returns the `k` best tokens, and which of them exist: a token of logit -inf does not.

  Among equal logits the lowest id comes first.
  """

  def best(logits):
    score, token = top_k(logits, k)
    return token, score > -jnp.inf

  return over_vocabulary(best, logits, roles=("b.v",), out=("b", "b"))


def siblings(
  scheme: DraftScheme,
  logits: Float[Array, "B I V"],
  q: Float[Array, "B I V"],
  count: Sequence[int],
  keys: Key[Array, " B"],
  warm: Bool[Array, " B"],
) -> tuple[Int[Array, "B I C"], Bool[Array, "B I C"]]:
  """Returns the children of I nodes in sampled order, and which of them exist.

  Node i has at most count[i] children. q: softmax(logits), the probabilities that the verifier
  gets. keys [B]: none may be used twice. Rows that are not `warm` get the most probable tokens of a
  node, without noise. Every scheme may return these tokens, so a verifier that is exact for the
  scheme is exact with them for a one-hot target, the only target that such rows may meet.

  WITH_REPLACEMENT: independent samples. WITHOUT_REPLACEMENT: Gumbel top-k, whose order is that of
  sampling one after the other (Sequoia, 2402.12374); when no token of positive q is left, there are
  no more children. GREEDY_PLUS_ONE: the top count[i] - 1, then a sample from the others
  (2502.18779). PAIR (SpecHub): x_1 from q; then a sample from the others if x_1 is the argmax, else
  the argmax. Raises ValueError for DELTA, which is `top_k_siblings` and needs neither q nor keys.
  """

  def sampled(*arrays):
    return _siblings(scheme, count, *arrays)

  roles = "b.v", "b.v", "b", "b"
  return over_vocabulary(sampled, logits, q, keys, warm, roles=roles, out=("b", "b"))


def _siblings(scheme, count, logits, q, keys, warm):
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
  raise ValueError(f"siblings are not sampled by {scheme.value!r}: use top_k_siblings")


def _if_warm(warm, sampled, best):
  """Returns `sampled` in warm rows and `best()` in the others; calls it only if there are any."""
  row = warm.reshape(-1, *(1,) * (sampled.ndim - 1))
  return jax.lax.cond(jnp.all(warm), lambda: sampled, lambda: jnp.where(row, sampled, best()))


def _with_positive_probs(q, token):
  return token, vocabulary.along(q, token) > 0


def _pair(q, sampled, k):
  # The verifier takes the argmax of q too: logits that differ may be equal in q.
  hub = argmax(q)
  if k == 1:
    return _with_positive_probs(q, sampled)
  # The second of two samples without replacement is a sample from the tokens but the first.
  second = jnp.where(sampled[..., 0] == hub, sampled[..., 1], hub)
  return _with_positive_probs(q, jnp.stack([sampled[..., 0], second], axis=-1))


def _greedy_plus_one(logits, q, count, keys, warm):
  k = max(count)
  top = top_k(logits, k)[1]
  last = np.asarray(count)[:, None] - 1
  fixed = jnp.arange(k) < last
  batch, node = jnp.ogrid[: q.shape[0], : q.shape[1]]
  used = jnp.where(fixed, vocabulary.index_of(q, top), q.shape[2])
  left = logits.at[batch[..., None], node[..., None], used].set(-jnp.inf, mode="drop")
  sampled = _if_warm(warm, jax.vmap(sample_categorical)(left, keys), lambda: argmax(left))
  token, valid = _with_positive_probs(q, jnp.where(jnp.arange(k) == last, sampled[..., None], top))
  return token, valid & (fixed | (_best(left) > -jnp.inf))


def _best(logits):
  return vocabulary.largest(jnp.max(logits, axis=-1, keepdims=True))
