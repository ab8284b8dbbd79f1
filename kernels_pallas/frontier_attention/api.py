"""The one place where models ask for attention: contract, checks and choice of implementation."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels_pallas.frontier_attention import reference

Implementation = Literal["reference"]


def frontier_attention(
  q: Float[Array, "B T H D"],
  cache_k: Float[Array, "B G S D"] | None,
  cache_v: Float[Array, "B G S D"] | None,
  lengths: Int[Array, " B"] | None,
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  stamp: Int[Array, "B K T"],
  lo: Int[Array, "B K T"],
  hi: Int[Array, "B K T"],
  *,
  position: Int[Array, "B T"] | None = None,
  cache_position: Int[Array, "B S"] | None = None,
  window: int | None = None,
  hidden: Int[Array, "B T"] | None = None,
  own: Bool[Array, "B T"] | None = None,
  soft_cap: float | None = None,
  scale: float | None = None,
  implementation: Implementation | None = None,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Attention of T frontier entries over S cache slots and over each other.

  Entry i sees every committed slot s < lengths[b], and fresh entry j iff
  lo[b,:,j] <= stamp[b,:,i] < hi[b,:,j]. With `window`, both also need
  |position_i - position_key| < window. Scores are float32; `scale` defaults to D ** -0.5;
  `soft_cap` c maps a score s to c * tanh(s / c). Returns the output in q's dtype and the float32
  log-sum-exp of the scores, so that partial results over disjoint keys merge exactly. An entry
  that sees nothing outputs 0 (lse = -inf).

  `implementation` names one and never falls back; None takes the best that works here.
  Raises ValueError for shapes that do not fit, and for a window without positions.
  """
  _check(q, cache_k, cache_v, lengths, k, v, stamp, position, cache_position, window)
  if implementation not in (None, "reference"):
    raise ValueError(f"unknown implementation {implementation!r}; there is: 'reference'")
  seen = reference.visible(stamp, lo, hi, hidden=hidden, own=own)
  cache_seen = None
  if cache_k is not None:
    slots = jnp.arange(cache_k.shape[2])
    cache_seen = (slots < lengths[:, None])[:, None, :]
  if window is not None:
    seen &= reference.within_window(position, position, window)
    if cache_k is not None:
      cache_seen = cache_seen & reference.within_window(position, cache_position, window)
  return reference.attend(
    q,
    cache_k,
    cache_v,
    k,
    v,
    cache_seen,
    seen,
    scale=q.shape[-1] ** -0.5 if scale is None else scale,
    soft_cap=soft_cap,
  )


def _check(q, cache_k, cache_v, lengths, k, v, stamp, position, cache_position, window):
  B, T, H, D = q.shape
  if k.shape != v.shape or k.shape[0] != B or k.shape[2:] != (T, D):
    raise ValueError(f"k {k.shape} and v {v.shape} must be [B, G, T, D] for q {q.shape}")
  if H % k.shape[1]:
    raise ValueError(f"{H} query heads do not divide among {k.shape[1]} key heads")
  if stamp.ndim != 3 or stamp.shape[0] != B or stamp.shape[2] != T:
    raise ValueError(f"stamp {stamp.shape} must be [B={B}, K, T={T}]")
  if (cache_k is None) != (cache_v is None) or (cache_k is None) != (lengths is None):
    raise ValueError("cache_k, cache_v and lengths are given together or not at all")
  if cache_k is not None and (cache_k.shape[:2] != k.shape[:2] or cache_k.shape[3] != D):
    raise ValueError(f"cache {cache_k.shape} must be [B, G, S, D] for k {k.shape}")
  if window is not None:
    if window < 1:
      raise ValueError(f"window must be at least 1, got {window}")
    if position is None or (cache_k is not None and cache_position is None):
      raise ValueError("a window goes by position: give position (and cache_position)")
