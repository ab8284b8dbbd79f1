"""A softmax over some of the keys that can be continued over others, and merged with others."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


class Partial(NamedTuple):
  """Running maximum, sum and output (2112.05682, sec. 2; FlashAttention 2205.14135, alg. 1)."""

  top: Float[Array, "*B N"]  # the greatest score so far; -inf: nothing seen
  total: Float[Array, "*B N"]  # sum of exp(score - top)
  out: Float[Array, "*B N D"]  # sum of exp(score - top) * value


def nothing(shape: tuple[int, ...]) -> Partial:
  """Returns the softmax over no keys, for an output of `shape` [..., N, D]."""
  none = jnp.full(shape[:-1], -jnp.inf, jnp.float32)
  return Partial(none, jnp.zeros_like(none), jnp.zeros(shape, jnp.float32))


class Seen(NamedTuple):
  """The scores of keys, and their values."""

  scores: Float[Array, "*B N J"]  # -inf: a key that is not seen, whose value must be finite
  values: Float[Array, "*B J D"]
  scale: Float[Array, "*B J"] | None = None  # factors of the values


def started(*parts: Seen) -> Partial:
  """Returns the softmax over the keys of all parts."""
  tops = [jnp.max(part.scores, axis=-1) for part in parts]
  top = functools.reduce(jnp.maximum, tops)
  sums = [_over(top, part) for part in parts]
  total, out = (functools.reduce(jnp.add, side) for side in zip(*sums, strict=True))
  return Partial(lax.stop_gradient(top), total, out)


def extended(partial: Partial, part: Seen) -> Partial:
  """Returns the softmax extended by the keys of `part`."""
  top = jnp.maximum(partial.top, jnp.max(part.scores, axis=-1))
  keep = jnp.exp(partial.top - finite_top(top))
  total, out = _over(top, part)
  return Partial(top, partial.total * keep + total, partial.out * keep[..., None] + out)


def _over(top, part: Seen):
  """Returns (total, out) of some keys relative to `top`, which cancels in the final result."""
  p = jnp.exp(part.scores - finite_top(lax.stop_gradient(top))[..., None])
  total = jnp.sum(p, axis=-1)
  if part.scale is not None:
    p *= part.scale[..., None, :]
  values = part.values
  if values.dtype.itemsize == 1:
    values = values.astype(jnp.float32)
  return total, jnp.matmul(p.astype(values.dtype), values, preferred_element_type=jnp.float32)


def finished(partial: Partial) -> tuple[Float[Array, "*B N D"], Float[Array, "*B N"]]:
  """Returns (out, lse), which are 0 and -inf where nothing was seen."""
  some = partial.total > 0
  total = jnp.where(some, partial.total, 1.0)
  lse = jnp.where(some, finite_top(partial.top) + jnp.log(total), -jnp.inf)
  return partial.out / total[..., None], lse


def continued(out: Float[Array, "*B N D"], lse: Float[Array, "*B N"]) -> Partial:
  """Returns a finished result as a `Partial`, to be extended over more keys."""
  return Partial(lse, jnp.where(jnp.isneginf(lse), 0.0, 1.0), out)


def finite_top(top: Float[Array, "*B N"]) -> Float[Array, "*B N"]:
  """Returns the number to subtract from scores: -inf - -inf would be NaN."""
  return jnp.where(jnp.isneginf(top), 0.0, top)


def merged(
  out: Float[Array, "P *B D"], lse: Float[Array, "P *B"]
) -> tuple[Float[Array, "*B D"], Float[Array, "*B"]]:
  """Merges P results over disjoint keys (split-K, shards of a cache, shared prefixes) into one.

  An output that has seen nothing (lse = -inf) may be anything but NaN. All are float32.
  """
  top = jnp.max(lse, axis=0)
  weight = jnp.exp(lse - finite_top(top))
  mixed = jnp.sum(out.astype(jnp.float32) * weight[..., None], axis=0)
  return finished(Partial(top, jnp.sum(weight, axis=0), mixed))


def merged_over(
  out: Float[Array, "*B D"], lse: Float[Array, "*B"], axis: str
) -> tuple[Float[Array, "*B D"], Float[Array, "*B"]]:
  """Merges under shard_map one part per device along a mesh axis; all devices get the result.

  Outputs are exchanged, not keys: one all-reduce of (D + 1) float32 per element of B, and a
  maximum of one.
  """
  top = lax.pmax(lax.stop_gradient(lse), axis)
  weight = jnp.exp(lse - finite_top(top))
  return finished(Partial(top, *lax.psum((weight, out * weight[..., None]), axis)))
