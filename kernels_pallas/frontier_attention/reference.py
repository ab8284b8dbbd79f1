"""The law of frontier attention, dense and slow: what every other implementation must give."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels_pallas.frontier_attention import blocks, cache_blocks
from kernels_pallas.frontier_attention.blocks import Keys, Queries
from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.score import Scoring


def attend(
  q: Float[Array, "B T H D"],
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  queries: Queries,
  keys: Keys,
  cache: Cache | None,
  position: Int[Array, "B T"] | None,
  scoring: Scoring,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """One softmax over the committed keys and the fresh ones, in float32. See `frontier_attention`.

  Query head h reads key head h // (H / G). An entry that sees nothing gets out = 0, lse = -inf.
  Keys and values nobody may see are never read: a NaN there does not spread.
  """
  B, T, H, D = q.shape
  G = k.shape[1]
  R = H // G
  q_BxGxTRxD = q.reshape(B, T, G, R, D).transpose(0, 2, 1, 3, 4).reshape(B, G, T * R, D)

  def scores(keys_BxGxJxD, seen_BxTxJ):
    s = scoring.scores(q_BxGxTRxD, keys_BxGxJxD).reshape(B, G, T, R, -1)
    return jnp.where(seen_BxTxJ[:, None, :, None, :], s, -jnp.inf)

  seen = blocks.mask_of(queries, keys)
  parts = [(scores(k, seen), v, jnp.any(seen, axis=1))]
  if cache is not None:
    all_k, all_v, seen = _whole(cache, position, scoring.window)
    parts.append((scores(all_k, seen), all_v, jnp.any(seen, axis=1)))
  top = jnp.max(jnp.stack([jnp.max(s, axis=-1) for s, _, _ in parts]), axis=0)
  finite_top = jnp.where(jnp.isneginf(top), 0.0, top)
  total = jnp.zeros((B, G, T, R), jnp.float32)
  out = jnp.zeros((B, G, T * R, D), jnp.float32)
  for s, values, used_BxJ in parts:
    p = jnp.exp(s - finite_top[..., None])
    total += jnp.sum(p, axis=-1)
    # 0 * NaN is NaN: a zero weight does not protect from what stands in an unused slot.
    values = jnp.where(used_BxJ[:, None, :, None], values, 0).astype(v.dtype)
    p = p.reshape(B, G, T * R, -1).astype(v.dtype)
    out += jnp.einsum("bgqj,bgjd->bgqd", p, values, preferred_element_type=jnp.float32)
  safe_total = jnp.where(total > 0, total, 1.0)
  out = out.reshape(B, G, T, R, D) / safe_total[..., None]
  lse = jnp.where(total > 0, finite_top + jnp.log(safe_total), -jnp.inf)
  out = out.transpose(0, 2, 1, 3, 4).reshape(B, T, H, D).astype(q.dtype)
  return out, lse.transpose(0, 2, 1, 3).reshape(B, T, H)


def _whole(cache: Cache, position, window):
  """Keys, values, and who sees them, of all slots at once, in the width they stand for."""
  cache = cache_blocks.contiguous(cache)
  k, v = cache.k, cache.v
  if cache.scales is not None:
    k, v = (x.astype(jnp.float32) * s[..., None] for x, s in zip((k, v), cache.scales, strict=True))
  seen = (jnp.arange(cache.capacity) < cache.lengths[:, None])[:, None, :]
  if window is not None:
    seen &= jnp.abs(position[:, :, None] - cache.position[:, None, :]) < window
  return k, v, seen
