"""Frontier attention in float64 numpy, entry by entry, written from its contract alone."""

import numpy as np


def attention(
  q, cache_k, cache_v, lengths, k, v, stamp, lo, hi, *, page_table=None, position=None,
  cache_position=None, window=None, hidden=None, own=None, soft_cap=None, scale=None,
  kv_scales=None,
):  # fmt: skip
  """Returns (out, lse) of one query at a time over the keys it sees, which are gathered first."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  # They are read one by one below, where each read of a JAX array would cost a dispatch.
  stamp, lo, hi, hidden, own, position, cache_position, page_table, lengths = (
    None if x is None else np.asarray(x)
    for x in (stamp, lo, hi, hidden, own, position, cache_position, page_table, lengths)
  )
  batch, entries, heads, width = q.shape
  scale = width**-0.5 if scale is None else scale
  out, lse = np.zeros(q.shape), np.full(q.shape[:3], -np.inf)
  for b in range(batch):
    old_k, old_v = np.zeros((2, k.shape[1], 0, width))
    if cache_k is not None:
      old_k, old_v = _committed(b, cache_k, cache_v, lengths, page_table, kv_scales)
    for i in range(entries):
      old = np.arange(old_k.shape[1])
      new = [j for j in range(entries) if _sees(b, i, j, stamp, lo, hi, hidden, own)]
      if window is not None:
        here = int(position[b, i])
        old = [s for s in old if abs(here - int(cache_position[b, s])) < window]
        near = [j for j in new if abs(here - int(position[b, j])) < window]
        new = [j for j in new if j in near or (own is not None and own[b, i] and j == i)]
      for h in range(heads):
        g = h // (heads // k.shape[1])
        keys = np.concatenate([old_k[g, old], k[b, g, new]])
        values = np.concatenate([old_v[g, old], v[b, g, new]])
        if not len(keys):
          continue
        s = keys @ q[b, i, h] * scale
        if soft_cap is not None:
          s = soft_cap * np.tanh(s / soft_cap)
        p = np.exp(s - s.max())
        out[b, i, h] = p @ values / p.sum()
        lse[b, i, h] = s.max() + np.log(p.sum())
  return out, lse


def _sees(b, i, j, stamp, lo, hi, hidden, own):
  if own is not None and own[b, i] and i == j:
    return True
  if hidden is not None and hidden[b, i] == j:
    return False
  return all(lo[b, n, j] <= stamp[b, n, i] < hi[b, n, j] for n in range(stamp.shape[1]))


def _committed(b, cache_k, cache_v, lengths, page_table, kv_scales):
  """Returns keys and values, [G, length, D] each."""
  found = []
  for side, x in enumerate((cache_k, cache_v)):
    x = np.asarray(x, np.float64)
    if kv_scales is not None:
      x = x * np.asarray(kv_scales[side], np.float64)[..., None]
    if page_table is None:
      row = x[b]
    else:
      page = x.shape[2]
      used = -(-int(lengths[b]) // page)
      pages = [x[int(p)] for p in page_table[b][:used]]
      row = np.concatenate([x[0][:, :0], *pages], axis=1)
    found.append(row[:, : int(lengths[b])])
  return tuple(found)
