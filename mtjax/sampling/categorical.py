"""Argmax, top k and samples of V tokens in two stages: of blocks first, then inside them.

A plain argmax or top-k is a loop over pairs that CPUs cannot vectorise, and noise for V tokens is
the dearest part of sampling one. The best block and the best in it are two short argmaxes, and
2 sqrt(V) numbers of noise are enough.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

_WHOLE = 256  # a vocabulary up to this is one block


def argmax(logits: Float[Array, "*N V"]) -> Int[Array, "*N"]:
  """Returns the argmax over V, int32; the lowest id of equals. Any token if one logit is NaN."""
  blocks = _blocks(logits)
  if blocks is None:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  block = jnp.argmax(jnp.max(blocks, axis=-1), axis=-1)
  return _of_one_block(blocks, block)


def top_k(logits: Float[Array, "*N V"], k: int) -> tuple[Float[Array, "*N C"], Int[Array, "*N C"]]:
  """Returns the `k` best logits, best first, and their tokens (int32); ties: lowest id first.

  Raises ValueError for a k above the vocabulary.
  """
  _check_k(k, logits)
  blocks = _blocks(logits)
  if blocks is None or k >= blocks.shape[-2]:
    score, token = jax.lax.top_k(logits, k)
    return score, token.astype(jnp.int32)
  block = jax.lax.top_k(jnp.max(blocks, axis=-1), k)[1]
  block = jnp.sort(block, axis=-1)  # equals of two blocks: the lower first
  return _best_inside(_inside(blocks, block), block, k)


def sample_categorical(logits: Float[Array, "*N V"], key: PRNGKeyArray) -> Int[Array, "*N"]:
  """Samples from softmax(logits) by Gumbel-max, int32; N rows independently, never a -inf.

  The largest of a block's perturbed logits is a Gumbel around the block's log-sum-exp, and which
  token it is does not depend on it (1402.0030, section 2): so the block is sampled by its mass,
  then the token in it. Noise of high precision: JAX's default float32 noise stops at 15.94, so rare
  tokens would never be sampled.
  """
  blocks = _blocks(logits)
  if blocks is None:
    return jnp.argmax(logits + _gumbel(key, logits), axis=-1).astype(jnp.int32)
  of_block, of_token = _gumbels(key, blocks, 1)
  block = jnp.argmax(jax.nn.logsumexp(blocks, axis=-1) + of_block, axis=-1)
  return _of_one_block(blocks, block, of_token[..., 0, :])


def sample_categorical_each(
  logits: Float[Array, "*N V"], key: PRNGKeyArray, k: int
) -> Int[Array, "*N C"]:
  """Samples `k` different tokens from softmax(logits), one after the other, int32.

  Gumbel top-k, top down: the blocks of the best tokens are those of the best block maxima, and
  inside them noise is sampled given its maximum (1903.06059, section 4.1). Tokens after the last
  one of positive probability are arbitrary. Raises ValueError for a k above the vocabulary.
  """
  _check_k(k, logits)
  blocks = _blocks(logits)
  if blocks is None or k >= blocks.shape[-2]:
    return jax.lax.top_k(logits + _gumbel(key, logits), k)[1].astype(jnp.int32)
  of_block, of_token = _gumbels(key, blocks, k)
  largest, block = jax.lax.top_k(jax.nn.logsumexp(blocks, axis=-1) + of_block, k)
  noisy = _given_largest(_inside(blocks, block) + of_token, largest[..., None])
  return jnp.minimum(_best_inside(noisy, block, k)[1], logits.shape[-1] - 1)


def _given_largest(noisy, largest):
  """Returns Gumbels with their maximum moved to `largest`, the others sampled given that."""
  top = jnp.max(noisy, axis=-1, keepdims=True)
  below = jnp.where(noisy < top, noisy - top, 0.0)
  gap = largest - noisy + jnp.log(-jnp.expm1(below))
  moved = largest - jnp.maximum(gap, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(gap)))
  return jnp.where(noisy > -jnp.inf, moved, -jnp.inf)


def _check_k(k, logits):
  if not 1 <= k <= logits.shape[-1]:
    raise ValueError(f"k must be at most the vocabulary of {logits.shape[-1]} tokens, got {k}")


def _gumbel(key, like):
  return jax.random.gumbel(key, like.shape, like.dtype, mode="high")


def _gumbels(key, blocks, k):
  """Returns noise for all blocks and for the insides of `k` of them, from one call."""
  *rows, count, width = blocks.shape
  noise = jax.random.gumbel(key, (*rows, count + k * width), blocks.dtype, mode="high")
  return noise[..., :count], noise[..., count:].reshape(*rows, k, width)


def _blocks(logits) -> Float[Array, "*N K W"] | None:
  vocab = logits.shape[-1]
  if vocab <= _WHOLE:
    return None
  width = 1 << round((vocab.bit_length() - 1) / 2)  # about the square root
  padding = [(0, 0)] * (logits.ndim - 1) + [(0, -vocab % width)]
  padded = jnp.pad(logits, padding, constant_values=-jnp.inf) if vocab % width else logits
  return padded.reshape(*logits.shape[:-1], -1, width)


def _inside(blocks, block: Int[Array, "*N C"]) -> Float[Array, "*N C W"]:
  return jnp.take_along_axis(blocks, block[..., None], axis=-2)


def _of_one_block(blocks, block, noise=0.0):
  inside = _inside(blocks, block[..., None])[..., 0, :]
  place = jnp.argmax(inside + noise, axis=-1)
  return (block * blocks.shape[-1] + place).astype(jnp.int32)


def _best_inside(inside, block, k):
  width = inside.shape[-1]
  score, place = jax.lax.top_k(inside.reshape(*inside.shape[:-2], -1), k)
  token = jnp.take_along_axis(block, place // width, axis=-1) * width + place % width
  return score, token.astype(jnp.int32)
