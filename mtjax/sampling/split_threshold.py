"""Top-k, top-p and min-p of logits whose vocabulary is split: thresholds without sorting all of it.

The threshold of a row is one of its logits. Its bits are found from the highest to the lowest, four
at a time: each device counts, or weighs, its own logits that are at least as large as each of 15
candidates, and the devices exchange these 15 numbers.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt

from mtjax.sharding import vocabulary

_BITS = 4  # found per exchange


def cut_by_parts(
  logits: Float[Array, "B N V"],
  top_k: Int[Array, " B"] | None,
  top_p: Float[Array, " B"] | None,
  min_p: Float[Array, " B"] | None,
) -> Float[Array, "B N V"]:
  """Returns the logits with -inf for what top-k, then top-p, and min-p remove.

  The rule is that of one device: the k largest logits, then the smallest set of at least top_p of
  their mass, then all that are at least min_p times the largest; equals of the last one kept are
  kept. Sums are rounded in another order than on one device.
  """
  best = vocabulary.largest(jnp.max(logits, axis=-1, keepdims=True))
  rank = _ranks(logits)
  kept = jnp.ones(logits.shape, bool)
  one = jnp.ones(logits.shape, logits.dtype)
  last = jnp.zeros((*logits.shape[:-1], 1), rank.dtype)
  if top_k is not None:
    k = jnp.where(top_k > 0, top_k, vocabulary.size(logits)).astype(logits.dtype)
    last = _last_kept(rank, one, k[:, None, None])
  if top_p is not None:
    mass = jnp.exp(logits - best)
    whole = vocabulary.total(mass, keepdims=True)
    if top_k is not None:
      # Of equals of the k-th logit only as many count as there are places left.
      above = rank > last
      places = k[:, None, None] - vocabulary.total(above.astype(one.dtype), keepdims=True)
      of_last = vocabulary.largest(jnp.max(jnp.where(above, 0, mass), axis=-1, keepdims=True))
      whole = vocabulary.total(jnp.where(above, mass, 0), keepdims=True) + places * of_last
    top_p = top_p[:, None, None]
    enough = _last_kept(rank, mass, top_p * whole)
    last = jnp.where(top_p >= 1, last, jnp.maximum(last, enough))
  kept &= rank >= last
  if min_p is not None:
    kept &= logits >= best + jnp.log(min_p[:, None, None])
  return jnp.where(kept, logits, -jnp.inf)


def _last_kept(rank, weight, target):
  """Returns the largest rank such that the logits from it on weigh at least `target`; 0: none."""
  bits = rank.dtype.itemsize * 8
  digit = jnp.arange(1, 1 << _BITS, dtype=rank.dtype)

  def find(step, found):
    shift = (bits - _BITS * (step + 1)).astype(rank.dtype)
    candidate = found | (digit << shift)
    own = jnp.sum(
      jnp.where(rank[..., None, :] >= candidate[..., None], weight[..., None, :], 0), axis=-1
    )
    number = jnp.sum(vocabulary.summed(own) >= target, axis=-1, keepdims=True)
    return found | (number.astype(rank.dtype) << shift)

  none = jnp.zeros((*rank.shape[:-1], 1), rank.dtype)
  return jax.lax.fori_loop(0, bits // _BITS, find, none)


def _ranks(logits: Float[Array, "B N V"]) -> UInt[Array, "B N V"]:
  """Returns unsigned integers in the order of the logits; equal logits have one."""
  kind = jnp.uint32 if logits.dtype.itemsize == 4 else jnp.uint64
  bits = jax.lax.bitcast_convert_type(jnp.where(logits == 0, 0, logits), kind)
  top = jnp.asarray(1 << (kind(0).itemsize * 8 - 1), kind)
  return jnp.where(bits >= top, ~bits, bits | top)
