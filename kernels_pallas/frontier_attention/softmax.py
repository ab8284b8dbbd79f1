"""A softmax over some of the keys that can be continued over others, and merged with its like."""

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
  """Of no keys, for an output of `shape` [..., N, D]."""
  none = jnp.full(shape[:-1], -jnp.inf, jnp.float32)
  return Partial(none, jnp.zeros_like(none), jnp.zeros(shape, jnp.float32))


def started(
  scores: Float[Array, "*B N J"],
  values: Float[Array, "*B J D"],
  value_scale: Float[Array, "*B J"] | None = None,
) -> Partial:
  """Over some keys. A score of -inf is a key that is not seen; its value must be finite."""
  return _over(jnp.max(scores, axis=-1), scores, values, value_scale)


def extended(
  partial: Partial,
  scores: Float[Array, "*B N J"],
  values: Float[Array, "*B J D"],
  value_scale: Float[Array, "*B J"] | None = None,
) -> Partial:
  """With more keys, given as to `started`."""
  more = _over(jnp.maximum(partial.top, jnp.max(scores, axis=-1)), scores, values, value_scale)
  keep = jnp.exp(partial.top - finite_top(more.top))
  return Partial(
    more.top, partial.total * keep + more.total, partial.out * keep[..., None] + more.out
  )


def _over(top, scores, values, value_scale) -> Partial:
  top = lax.stop_gradient(top)  # the result does not depend on it
  p = jnp.exp(scores - finite_top(top)[..., None])
  total = jnp.sum(p, axis=-1)
  if value_scale is not None:
    p *= value_scale[..., None, :]
  if values.dtype.itemsize == 1:
    values = values.astype(jnp.float32)
  out = jnp.matmul(p.astype(values.dtype), values, preferred_element_type=jnp.float32)
  return Partial(top, total, out)


def finished(partial: Partial) -> tuple[Float[Array, "*B N D"], Float[Array, "*B N"]]:
  """(out, lse); 0 and -inf where nothing was seen."""
  some = partial.total > 0
  total = jnp.where(some, partial.total, 1.0)
  lse = jnp.where(some, finite_top(partial.top) + jnp.log(total), -jnp.inf)
  return partial.out / total[..., None], lse


def continued(out: Float[Array, "*B N D"], lse: Float[Array, "*B N"]) -> Partial:
  """What is finished, to be extended over more keys."""
  return Partial(lse, jnp.where(jnp.isneginf(lse), 0.0, 1.0), out)


def finite_top(top: Float[Array, "*B N"]) -> Float[Array, "*B N"]:
  """What is subtracted from scores: -inf - -inf would be NaN."""
  return jnp.where(jnp.isneginf(top), 0.0, top)


def merged(
  out: Float[Array, "P *B D"], lse: Float[Array, "P *B"]
) -> tuple[Float[Array, "*B D"], Float[Array, "*B"]]:
  """One attention of P over disjoint keys (split-K, shards of a cache, shared prefixes).

  What sees nothing (lse = -inf) may hold anything but NaN. Float32 in, float32 out.
  """
  top = finite_top(jnp.max(lse, axis=0))
  weight = jnp.exp(lse - top)
  total = jnp.sum(weight, axis=0)
  some = total > 0
  total = jnp.where(some, total, 1.0)
  mixed = jnp.sum(out.astype(jnp.float32) * weight[..., None], axis=0) / total[..., None]
  return mixed, jnp.where(some, top + jnp.log(total), -jnp.inf)
