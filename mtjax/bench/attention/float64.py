"""The contract of frontier attention in float64 numpy, on the host: the expected results."""

from collections.abc import Iterator

import numpy as np


def seen(arguments: dict) -> np.ndarray:
  """Returns which fresh entries see which, [B, T, T], as the contract says."""
  point, lo, hi = (np.asarray(arguments[name])[..., None] for name in ("stamp", "lo", "hi"))
  result = np.all((lo.swapaxes(2, 3) <= point) & (point < hi.swapaxes(2, 3)), axis=1)
  index = np.arange(result.shape[1])
  if arguments.get("hidden") is not None:
    result &= np.asarray(arguments["hidden"])[..., None] != index
  if arguments.get("window") is not None:
    place = np.asarray(arguments["position"])
    result &= np.abs(place[:, :, None] - place[:, None]) < arguments["window"]
  if arguments.get("own") is not None:
    result |= np.asarray(arguments["own"])[..., None] & (index[:, None] == index)
  return result


def attend(arguments: dict) -> tuple[np.ndarray, np.ndarray]:
  """Returns output [B, T, H, D] and log-sum-exp [B, T, H]; 0 and -inf where nothing is seen."""
  q = np.asarray(arguments["q"], np.float64)
  out, lse = np.zeros(q.shape), np.full(q.shape[:3], -np.inf)
  for b, h, s, _, values in _heads(arguments):
    top = s.max(axis=1, initial=-np.inf)
    some = np.isfinite(top)
    p = np.exp(s[some] - top[some, None])
    out[b, some, h] = p @ values / p.sum(axis=1, keepdims=True)
    lse[b, some, h] = top[some] + np.log(p.sum(axis=1))
  return out, lse


def gradients(arguments: dict, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the gradients of sum(output * cotangent) by q, k and v, without cache and soft cap."""
  if arguments["cache_k"] is not None or arguments.get("soft_cap") is not None:
    raise ValueError("gradients need inputs without a cache and without a soft cap")
  q, k = (np.asarray(arguments[name], np.float64) for name in "qk")
  dq, dk, dv = (np.zeros(np.shape(arguments[name])) for name in "qkv")
  group, used = q.shape[2] // k.shape[1], seen(arguments).any(axis=1)
  for b, h, s, keys, values in _heads(arguments):
    top = s.max(axis=1, initial=-np.inf)
    p = np.exp(s - np.where(np.isfinite(top), top, 0)[:, None])
    p /= np.maximum(p.sum(axis=1, keepdims=True), 1e-300)
    g = cotangent[b, :, h]
    by_p = g @ values.T
    by_s = p * (by_p - (p * by_p).sum(axis=1, keepdims=True)) * _scale(arguments)
    dq[b, :, h] = by_s @ keys
    dk[b, h // group, used[b]] += by_s.T @ q[b, :, h]
    dv[b, h // group, used[b]] += p.T @ g
  return dq, dk, dv


def _scale(arguments) -> float:
  return arguments["q"].shape[3] ** -0.5 if arguments.get("scale") is None else arguments["scale"]


def _heads(arguments) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
  """Yields row, head, scores [T, J] (-inf: not seen), and the seen keys and values [J, D]."""
  q, k, v = (np.asarray(arguments[name], np.float64) for name in "qkv")
  fresh, window = seen(arguments), arguments.get("window")
  for b in range(q.shape[0]):
    parts = [(k[b], v[b], fresh[b])]
    if arguments["cache_k"] is not None:
      old = np.ones((q.shape[1], int(arguments["lengths"][b])), bool)
      if window is not None:
        place = np.asarray(arguments["cache_position"])[b, : old.shape[1]]
        old &= np.abs(np.asarray(arguments["position"])[b][:, None] - place) < window
      parts.insert(0, (*_committed(arguments, b), old))
    used = [mask.any(axis=0) for *_, mask in parts]
    mask = np.concatenate([m[:, u] for (*_, m), u in zip(parts, used, strict=True)], axis=1)
    for h in range(q.shape[2]):
      g = h // (q.shape[2] // k.shape[1])
      keys, values = (
        np.concatenate([part[n][g, u] for part, u in zip(parts, used, strict=True)])
        for n in range(2)
      )
      s = q[b, :, h] @ keys.T * _scale(arguments)
      if (cap := arguments.get("soft_cap")) is not None:
        s = cap * np.tanh(s / cap)
      yield b, h, np.where(mask, s, -np.inf), keys, values


def _committed(arguments, b) -> list[np.ndarray]:
  """Returns the committed keys and values [G, length, D] of a row."""
  result, length, table = [], int(arguments["lengths"][b]), arguments.get("page_table")
  for side, name in enumerate(("cache_k", "cache_v")):
    x, scales = arguments[name], arguments.get("kv_scales")
    if table is None:
      rows = b
    else:
      rows = np.asarray(table)[b, : -(-length // x.shape[2])]
    x = np.asarray(x[rows], np.float64)
    if scales is not None:
      x = x * np.asarray(scales[side][rows], np.float64)[..., None]
    if table is not None:
      x = x.swapaxes(0, 1).reshape(x.shape[1], -1, x.shape[3])
    result.append(x[:, :length])
  return result
