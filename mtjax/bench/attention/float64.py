"""The contract of frontier attention in float64 numpy, on the host: the expected results."""

from collections.abc import Iterator

import numpy as np


def seen(given: dict) -> np.ndarray:
  """Returns which fresh entries see which, [B, T, T], as the contract says."""
  point, lo, hi = (np.asarray(given[name])[..., None] for name in ("stamp", "lo", "hi"))
  found = np.all((lo.swapaxes(2, 3) <= point) & (point < hi.swapaxes(2, 3)), axis=1)
  index = np.arange(found.shape[1])
  if given.get("hidden") is not None:
    found &= np.asarray(given["hidden"])[..., None] != index
  if given.get("window") is not None:
    place = np.asarray(given["position"])
    found &= np.abs(place[:, :, None] - place[:, None]) < given["window"]
  if given.get("own") is not None:
    found |= np.asarray(given["own"])[..., None] & (index[:, None] == index)
  return found


def attend(given: dict) -> tuple[np.ndarray, np.ndarray]:
  """Returns output [B, T, H, D] and log-sum-exp [B, T, H]; 0 and -inf where nothing is seen."""
  q = np.asarray(given["q"], np.float64)
  out, lse = np.zeros(q.shape), np.full(q.shape[:3], -np.inf)
  for b, h, s, _, values in _heads(given):
    top = s.max(axis=1, initial=-np.inf)
    some = np.isfinite(top)
    p = np.exp(s[some] - top[some, None])
    out[b, some, h] = p @ values / p.sum(axis=1, keepdims=True)
    lse[b, some, h] = top[some] + np.log(p.sum(axis=1))
  return out, lse


def gradients(given: dict, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the gradients of sum(output * cotangent) by q, k and v, without cache and soft cap."""
  if given["cache_k"] is not None or given.get("soft_cap") is not None:
    raise ValueError("gradients need inputs without a cache and without a soft cap")
  q, k = (np.asarray(given[name], np.float64) for name in "qk")
  dq, dk, dv = (np.zeros(np.shape(given[name])) for name in "qkv")
  group, used = q.shape[2] // k.shape[1], seen(given).any(axis=1)
  for b, h, s, keys, values in _heads(given):
    top = s.max(axis=1, initial=-np.inf)
    p = np.exp(s - np.where(np.isfinite(top), top, 0)[:, None])
    p /= np.maximum(p.sum(axis=1, keepdims=True), 1e-300)
    g = cotangent[b, :, h]
    by_p = g @ values.T
    by_s = p * (by_p - (p * by_p).sum(axis=1, keepdims=True)) * _scale(given)
    dq[b, :, h] = by_s @ keys
    dk[b, h // group, used[b]] += by_s.T @ q[b, :, h]
    dv[b, h // group, used[b]] += p.T @ g
  return dq, dk, dv


def _scale(given) -> float:
  return given["q"].shape[3] ** -0.5 if given.get("scale") is None else given["scale"]


def _heads(given) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
  """Yields row, head, scores [T, J] (-inf: not seen), and the seen keys and values [J, D]."""
  q, k, v = (np.asarray(given[name], np.float64) for name in "qkv")
  fresh, window = seen(given), given.get("window")
  for b in range(q.shape[0]):
    parts = [(k[b], v[b], fresh[b])]
    if given["cache_k"] is not None:
      old = np.ones((q.shape[1], int(given["lengths"][b])), bool)
      if window is not None:
        place = np.asarray(given["cache_position"])[b, : old.shape[1]]
        old &= np.abs(np.asarray(given["position"])[b][:, None] - place) < window
      parts.insert(0, (*_committed(given, b), old))
    used = [mask.any(axis=0) for *_, mask in parts]
    mask = np.concatenate([m[:, u] for (*_, m), u in zip(parts, used, strict=True)], axis=1)
    for h in range(q.shape[2]):
      g = h // (q.shape[2] // k.shape[1])
      keys, values = (
        np.concatenate([part[n][g, u] for part, u in zip(parts, used, strict=True)])
        for n in range(2)
      )
      s = q[b, :, h] @ keys.T * _scale(given)
      if (cap := given.get("soft_cap")) is not None:
        s = cap * np.tanh(s / cap)
      yield b, h, np.where(mask, s, -np.inf), keys, values


def _committed(given, b) -> list[np.ndarray]:
  """Returns the committed keys and values [G, length, D] of a row."""
  found, length, table = [], int(given["lengths"][b]), given.get("page_table")
  for side, name in enumerate(("cache_k", "cache_v")):
    x, scales = given[name], given.get("kv_scales")
    if table is None:
      rows = b
    else:
      rows = np.asarray(table)[b, : -(-length // x.shape[2])]
    x = np.asarray(x[rows], np.float64)
    if scales is not None:
      x = x * np.asarray(scales[side][rows], np.float64)[..., None]
    if table is not None:
      x = x.swapaxes(0, 1).reshape(x.shape[1], -1, x.shape[3])
    found.append(x[:, :length])
  return found
