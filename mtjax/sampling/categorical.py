"""The best of V tokens, or samples from them, in two stages: among blocks, then inside the blocks.

A plain argmax or top-k is a loop over pairs that CPUs cannot vectorise, and noise for V tokens
costs more time than the rest of sampling one. The best block and the best token in it are two short
argmaxes, and 2 sqrt(V) numbers of noise are enough. Under `over_vocabulary` devices have parts of
the vocabulary. They exchange a number per block and the logits of the chosen blocks; noise and
tokens are those of one device.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mtjax.sampling import split_blocks
from mtjax.sharding import vocabulary

_WHOLE = 256  # a vocabulary up to this is one block


def argmax(logits: Float[Array, "*N V"]) -> Int[Array, "*N"]:
  """Returns the argmax over the vocabulary, int32: the lowest id of equals.

  If a logit is NaN, the token may be any.
  """
  if vocabulary.is_split():
    return split_blocks.argmax(logits)
  blocks = _blocks(logits)
  if blocks is None:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  block = jnp.argmax(jnp.max(blocks, axis=-1), axis=-1)
  return _of_one_block(blocks, block)


def top_k(logits: Float[Array, "*N V"], k: int) -> tuple[Float[Array, "*N C"], Int[Array, "*N C"]]:
  """Returns the `k` best logits, best first, and their tokens (int32).

  Among equals the lowest id comes first. Raises ValueError unless k is from 1 to V.
  """
  _check_k(k, logits)
  if vocabulary.is_split():
    return split_blocks.top_k(logits, k)
  blocks = _blocks(logits)
  if blocks is None or k >= blocks.shape[-2]:
    score, token = jax.lax.top_k(logits, k)
    return score, token.astype(jnp.int32)
  block = jax.lax.top_k(jnp.max(blocks, axis=-1), k)[1]
  block = jnp.sort(block, axis=-1)  # equals of two blocks: the lower first
  return _best_inside(_inside(blocks, block), block, k)


def sample_categorical(logits: Float[Array, "*N V"], key: PRNGKeyArray) -> Int[Array, "*N"]:
  """Samples a token per row from softmax(logits) by Gumbel-max, int32; never a token of -inf.

  The largest of a block's perturbed logits is a Gumbel around the block's log-sum-exp, and which
  token has it is independent of its value (1402.0030, section 2). So the block is sampled by its
  mass, then the token in it. The noise is of high precision: JAX's default float32 noise stops at
  15.94, so rare tokens would never be sampled.
  """
  if vocabulary.is_split():
    return _sample_by_parts(logits, key)
  blocks = _blocks(logits)
  if blocks is None:
    return jnp.argmax(logits + _gumbel(key, logits), axis=-1).astype(jnp.int32)
  of_block, of_token = _gumbels(key, blocks, 1)
  block = jnp.argmax(jax.nn.logsumexp(blocks, axis=-1) + of_block, axis=-1)
  return _of_one_block(blocks, block, of_token[..., 0, :])


def sample_categorical_each(
  logits: Float[Array, "*N V"], key: PRNGKeyArray, k: int
) -> Int[Array, "*N C"]:
  """Samples `k` different tokens, as from softmax(logits) one after the other, int32.

  Gumbel top-k, top down: the blocks of the best tokens are those of the best block maxima, and
  inside them noise is sampled given its maximum (1903.06059, section 4.1). After the last token of
  positive probability the tokens may be any. Raises ValueError unless k is from 1 to V.
  """
  _check_k(k, logits)
  if vocabulary.is_split():
    return _sample_each_by_parts(logits, key, k)
  blocks = _blocks(logits)
  if blocks is None or k >= blocks.shape[-2]:
    return jax.lax.top_k(logits + _gumbel(key, logits), k)[1].astype(jnp.int32)
  of_block, of_token = _gumbels(key, blocks, k)
  largest, block = jax.lax.top_k(jax.nn.logsumexp(blocks, axis=-1) + of_block, k)
  noisy = _given_largest(_inside(blocks, block) + of_token, largest[..., None])
  return jnp.minimum(_best_inside(noisy, block, k)[1], logits.shape[-1] - 1)


def _sample_by_parts(logits, key):
  vocab = vocabulary.size(logits)
  if vocab <= _WHOLE:
    return split_blocks.argmax(logits + vocabulary.own_part(_gumbel_of(key, logits, vocab)))
  width = _width(vocab)
  blocks = split_blocks.SplitBlocks.of(logits, width)
  of_block, of_token = _noise(key, logits, blocks.count, width, 1)
  block = jnp.argmax(blocks.logsumexp() + of_block, axis=-1)
  place = jnp.argmax(blocks.inside(block) + of_token[..., 0, :], axis=-1)
  return (block * width + place).astype(jnp.int32)


def _sample_each_by_parts(logits, key, k):
  vocab = vocabulary.size(logits)
  width = _width(vocab)
  if vocab <= _WHOLE or k >= -(-vocab // width):
    return split_blocks.top_k(logits + vocabulary.own_part(_gumbel_of(key, logits, vocab)), k)[1]
  blocks = split_blocks.SplitBlocks.of(logits, width)
  of_block, of_token = _noise(key, logits, blocks.count, width, k)
  largest, block = jax.lax.top_k(blocks.logsumexp() + of_block, k)
  noisy = _given_largest(blocks.inside(block) + of_token, largest[..., None])
  return jnp.minimum(_best_inside(noisy, block, k)[1], vocab - 1)


def _given_largest(noisy, largest):
  """Returns the Gumbels with their maximum moved to `largest` and the others conditioned on it."""
  top = jnp.max(noisy, axis=-1, keepdims=True)
  below = jnp.where(noisy < top, noisy - top, 0.0)
  gap = largest - noisy + jnp.log(-jnp.expm1(below))
  moved = largest - jnp.maximum(gap, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(gap)))
  return jnp.where(noisy > -jnp.inf, moved, -jnp.inf)


def _check_k(k, logits):
  vocab = vocabulary.size(logits)
  if not 1 <= k <= vocab:
    raise ValueError(f"k must be from 1 to the vocabulary's {vocab} tokens, got {k}")


def _gumbel(key, like):
  return _gumbel_of(key, like, like.shape[-1])


def _gumbel_of(key, like, vocab):
  """Returns the noise of all tokens, of which `like` may have a part."""
  return jax.random.gumbel(key, (*like.shape[:-1], vocab), like.dtype, mode="high")


def _gumbels(key, blocks, k):
  """Returns noise for all blocks and for the tokens of `k` of them.

  Both come from one call, because a CPU runs a loop for each call.
  """
  *_, count, width = blocks.shape
  return _noise(key, blocks[..., 0, :], count, width, k)


def _noise(key, like, count, width, k):
  rows = like.shape[:-1]
  noise = jax.random.gumbel(key, (*rows, count + k * width), like.dtype, mode="high")
  return noise[..., :count], noise[..., count:].reshape(*rows, k, width)


def _blocks(logits) -> Float[Array, "*N K W"] | None:
  vocab = logits.shape[-1]
  if vocab <= _WHOLE:
    return None
  width = _width(vocab)
  padding = [(0, 0)] * (logits.ndim - 1) + [(0, -vocab % width)]
  padded = jnp.pad(logits, padding, constant_values=-jnp.inf) if vocab % width else logits
  return padded.reshape(*logits.shape[:-1], -1, width)


def _width(vocab: int) -> int:
  return 1 << round((vocab.bit_length() - 1) / 2)  # about the square root


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
