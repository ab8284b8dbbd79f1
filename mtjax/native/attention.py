"""Attention of a few fresh entries over a contiguous float32 cache, in native code."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.native import build

MAX_WIDTH = 256  # kMaxWidth of attention.h


def why_not(q: jax.Array, cache_k: jax.Array, k: jax.Array) -> str | None:
  """Returns why `native_attention` cannot compute this; None: it can, if there is native code."""
  others = {x.dtype.name for x in (q, cache_k, k)} - {"float32"}
  if others:
    return f"computes in float32, not {', '.join(sorted(others))}"
  width = q.shape[3]
  if width % 16 or width > MAX_WIDTH:
    return f"has heads of multiples of 16 up to {MAX_WIDTH} dimensions, not {width}"
  if 0 in q.shape:
    return f"needs entries, not q {q.shape}"
  return None


def native_attention(
  q: Float[Array, "B T H D"],
  cache_k: Float[Array, "B N S D"],
  cache_v: Float[Array, "B N S D"],
  lengths: Int[Array, " B"],
  first_head: Int[Array, ""] | int,
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  seen: Bool[Array, "B T T"],
  scale: float,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Returns (output, log-sum-exp) of `frontier_attention`, where `why_not` is None.

  Entry i sees the slots below lengths[b] of key heads first_head, ..., first_head + G - 1 of the
  cache, and fresh entry j iff seen[b, i, j]. Blocks of slots are one online softmax (FlashAttention
  2205.14135, alg. 1), with an exp within 2 units in the last place. The bits of an output do not
  depend on the other rows and entries, their number and the threads. What nobody sees may be NaN.

  It works under jit, loops and vmap, but has no gradient. Raises RuntimeError if there is no native
  code.
  """
  build.library()
  out = jax.ShapeDtypeStruct(q.shape, jnp.float32), jax.ShapeDtypeStruct(q.shape[:3], jnp.float32)
  call = jax.ffi.ffi_call(build.ATTENTION, out, vmap_method="sequential")
  first_head, lengths = (jnp.asarray(x, jnp.int32) for x in (first_head, lengths))
  result, lse = call(q, cache_k, cache_v, lengths, first_head, k, v, seen, jnp.float32(scale))
  return result, lse
