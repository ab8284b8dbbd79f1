"""The largest probability that any lossless verifier accepts one of n drafts at a position."""

import math

import numpy as np
from jaxtyping import Float

from mtjax.types import DraftLaw

SPACING = 1 / 12  # of the quadrature's nodes; errors stay below 1e-12


def optimal_acceptance(
  p: Float[np.ndarray, " V"], q: Float[np.ndarray, " V"], n: int, law: DraftLaw
) -> float:
  """Hu et al., Towards optimal multi-draft speculative decoding (2502.18779).

  Over all couplings of the emitted token i ~ p and the drafts x_1..x_n of `law`, the largest
  P(i is a draft). By duality it is 1 + min over sets H of P(H) - Q(H), where Q(H) is the
  probability that all drafts lie in H; drafts with and without replacement have their minimum at
  a prefix of the tokens sorted by q / p, falling: O(V log V). In float64; the slow form is a
  linear programme over V^(n + 1) variables.

  DELTA and GREEDY_PLUS_ONE take their fixed tokens from the top of q. Raises ValueError for n
  below 1, laws of unequal length, and pairs that are not two.
  """
  p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
  if p.ndim != 1 or p.shape != q.shape:
    raise ValueError(f"p and q are laws over one vocabulary, got shapes {p.shape} and {q.shape}")
  if n < 1 or (law is DraftLaw.PAIR and n != 2):
    raise ValueError(f"{law.value} drafts come {'in twos' if n >= 1 else 'at least one'}, got {n}")
  p, q = p / p.sum(), q / q.sum()
  if law is DraftLaw.DELTA:
    return float(p[_top(q, n)].sum())
  if law in (DraftLaw.GREEDY_PLUS_ONE, DraftLaw.PAIR):
    return _greedy_plus_one(p, q, n)
  p, q = p[q > 0], q[q > 0]
  if law is DraftLaw.WITHOUT_REPLACEMENT and q.size <= n:
    return float(p.sum())  # everything that q can draw is drafted
  ahead = np.argsort(-q / np.maximum(p, np.finfo(p.dtype).tiny), kind="stable")
  p, q = p[ahead], q[ahead]
  if law is DraftLaw.WITH_REPLACEMENT:
    inside = np.cumsum(q) ** n
  elif n == 1:
    inside = np.cumsum(q)
  elif n == 2:
    inside = _both_inside(q)
  else:
    inside = _all_inside(q, n)
  return float(1 + min(0.0, (np.cumsum(p) - np.minimum(inside, 1)).min()))


def _top(q, count):
  return np.argsort(-q, kind="stable")[:count]


def _greedy_plus_one(p, q, n):
  """P(top) + sum of min(p, q~) elsewhere, q~ being q without its top n - 1."""
  top = _top(q, n - 1)
  fixed = p[top].sum()
  p, q = np.delete(p, top), np.delete(q, top)
  return float(fixed + np.minimum(p, q / q.sum() if q.sum() > 0 else q).sum())


def _outside(q):
  """1 - q(H) of every prefix H, without cancellation."""
  return np.append(np.cumsum(q[::-1])[::-1][1:], 0.0)


def _both_inside(q):
  """Q(H) of every prefix for two draws: s - (1 - s) sum q / (1 - q), with s = q(H)."""
  others = 1 - q
  others[q > 0.5] = [np.delete(q, i).sum() for i in np.flatnonzero(q > 0.5)]  # no cancellation
  return np.cumsum(q) - _outside(q) * np.cumsum(q / others)


def _all_inside(q, n):
  """Q(H) of every prefix for n draws, by an exponential race.

  Token i arrives after Exp(q_i); H's first n arrive before anything else with probability
  1 - (1 - q(H)) int exp(-t) sum_{k<n} e_k(exp(q_i t) - 1, i in H) dt, with e_k the elementary
  symmetric polynomials: cumulative sums along the prefix. The n - 1 largest q are kept out of
  them, so that nothing overflows when they hold nearly all of q. t = exp(s - exp(-s)).
  """
  heavy = np.sort(_top(q, n - 1))
  light = q.copy()
  light[heavy] = 0
  slowest = light.sum()  # the rate at which the integrand ends, by itself for accuracy
  segment = np.searchsorted(heavy, np.arange(q.size), side="right")  # heavy tokens in the prefix
  s = np.arange(-3.7, math.log(40 / slowest), SPACING)
  times = np.exp(s - np.exp(-s))
  weights = times * (1 + np.exp(-s)) * SPACING
  total = np.zeros_like(q)
  for t, weight in zip(times, weights, strict=True):
    power = np.ones_like(q)
    odds = np.expm1(light * t)
    share = _heavy_shares(q[heavy], slowest, t, n)
    for k in range(n):
      total += weight * share[k][segment] * power
      # e_(k+1) of a prefix: its last token with e_k of what is before it.
      power = np.cumsum(odds * np.append(float(k == 0), power[:-1]))
  return 1 - _outside(q) * total


def _heavy_shares(heavy, light, t, n):
  """[k, m]: what the first m heavy tokens make of e_k of the light ones, times exp(-t).

  At most n - 1 - k of them have arrived by t, and none of the others, heavy or light.
  """
  out = np.zeros((n, heavy.size + 1))
  arrived = np.zeros(n)
  arrived[0] = 1.0
  for m in range(heavy.size + 1):
    out[:, m] = np.cumsum(arrived)[::-1] * math.exp(-t * (light + heavy[m:].sum()))
    if m < heavy.size:
      late = math.exp(-heavy[m] * t)
      arrived = arrived * late - np.append(0.0, arrived[:-1]) * math.expm1(-heavy[m] * t)
  return out
