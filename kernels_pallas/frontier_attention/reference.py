"""The law of frontier attention, dense and slow: the oracle of every other implementation."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def visible(
  stamp: Int[Array, "B K T"],
  lo: Int[Array, "B K T"],
  hi: Int[Array, "B K T"],
  *,
  hidden: Int[Array, "B T"] | None = None,
  own: Bool[Array, "B T"] | None = None,
) -> Bool[Array, "B T T"]:
  """Entry i sees entry j iff lo[k,j] <= stamp[k,i] < hi[k,j] for all k.

  `hidden[i]` names one key that query i does not see in spite of that (-1: none); `own[i]` lets
  entry i see itself in spite of that.
  """
  query = stamp[:, :, :, None]
  seen = jnp.all((lo[:, :, None, :] <= query) & (query < hi[:, :, None, :]), axis=1)
  index = jnp.arange(stamp.shape[-1])
  if hidden is not None:
    seen &= hidden[:, :, None] != index
  if own is not None:
    seen |= own[:, :, None] & (index[:, None] == index)
  return seen


def within_window(
  query_position: Int[Array, "B T"], key_position: Int[Array, "B J"], window: int
) -> Bool[Array, "B T J"]:
  """Sliding window by position: |query - key| < window, whatever rows the entries stand in."""
  return jnp.abs(query_position[:, :, None] - key_position[:, None, :]) < window


def attend(
  q: Float[Array, "B T H D"],
  cache_k: Float[Array, "B G S D"] | None,
  cache_v: Float[Array, "B G S D"] | None,
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  cache_seen: Bool[Array, "B #T S"] | None,
  seen: Bool[Array, "B T T"],
  *,
  scale: float,
  soft_cap: float | None = None,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Softmax attention over the committed keys and the fresh ones, in float32; returns (out, lse).

  Query head h reads key head h // (H / G). An entry that sees nothing gets out = 0, lse = -inf.
  Keys and values nobody may see are never read: a NaN there does not spread.
  """
  B, T, H, D = q.shape
  G = k.shape[1]
  R = H // G
  q_BxGxTRxD = q.reshape(B, T, G, R, D).transpose(0, 2, 1, 3, 4).reshape(B, G, T * R, D)

  def scores(keys_BxGxJxD, seen_BxTxJ):
    s = jnp.einsum("bgqd,bgjd->bgqj", q_BxGxTRxD, keys_BxGxJxD, preferred_element_type=jnp.float32)
    s = s.reshape(B, G, T, R, -1) * scale
    if soft_cap is not None:
      s = soft_cap * jnp.tanh(s / soft_cap)
    return jnp.where(seen_BxTxJ[:, None, :, None, :], s, -jnp.inf)

  parts = [(scores(k, seen), v, jnp.any(seen, axis=1))]
  if cache_k is not None:
    parts.append((scores(cache_k, cache_seen), cache_v, jnp.any(cache_seen, axis=1)))
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
