"""The largest probability that any lossless verifier accepts one of n drafts at a position."""

import numpy as np
from jaxtyping import Float

from mtjax.types import DraftScheme
from mtjax.verify.race import Race

SEGMENTS = 128  # prefixes evaluated at once in the search for the minimum
TOLERANCE = 1e-11


def optimal_acceptance(
  p: Float[np.ndarray, " V"], q: Float[np.ndarray, " V"], n: int, scheme: DraftScheme
) -> float:
  """Returns the largest acceptance probability at a node (Hu et al., multi-draft SD, 2502.18779).

  It bounds the first draft of a path for every lossless rule, and later ones for rules that judge
  each node for itself; rules that judge whole paths exceed it there (`mtjax.verify.path_bound`).

  Over all couplings of the emitted token i ~ p and the drafts x_1..x_n of `scheme`, the largest
  P(i is a draft). By duality it is 1 + min over sets H of P(H) - Q(H), where Q(H) is the
  probability that all drafts lie in H; drafts with and without replacement have their minimum at
  a prefix of the tokens sorted by q / p, falling: O(V log V). In float64; the slow form is a
  linear programme over V^(n + 1) variables.

  DELTA and GREEDY_PLUS_ONE take their fixed tokens from the top of q. Raises ValueError for n
  below 1, p and q of unequal length, and pairs that are not two.
  """
  p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
  if p.ndim != 1 or p.shape != q.shape:
    raise ValueError(f"p and q must be [V] over one vocabulary, got shapes {p.shape} and {q.shape}")
  if n < 1 or (scheme is DraftScheme.PAIR and n != 2):
    raise ValueError(
      f"{scheme.value} drafts must be {'two' if n >= 1 else 'at least one'}, got {n}"
    )
  p, q = p / p.sum(), q / q.sum()
  if scheme is DraftScheme.DELTA:
    return float(p[_top(q, n)].sum())
  if scheme in (DraftScheme.GREEDY_PLUS_ONE, DraftScheme.PAIR):
    return _greedy_plus_one(p, q, n)
  p, q = p[q > 0], q[q > 0]
  if scheme is DraftScheme.WITHOUT_REPLACEMENT and q.size <= n:
    return float(p.sum())  # everything that has a positive q is drafted
  ahead = np.argsort(-q / np.maximum(p, np.finfo(p.dtype).tiny))
  p, q = p[ahead], q[ahead]
  if scheme is DraftScheme.WITH_REPLACEMENT:
    inside = np.cumsum(q) ** n
  elif n == 1:
    inside = np.cumsum(q)
  elif n == 2:
    inside = _both_inside(q)
  else:
    return float(1 + min(0.0, _smallest_gap(np.cumsum(q), np.cumsum(p), Race(q, n))))
  return float(1 + min(0.0, (np.cumsum(p) - np.minimum(inside, 1)).min()))


def _top(q, count):
  return np.argsort(-q, kind="stable")[:count]


def _greedy_plus_one(p, q, n):
  """Returns P(top) + sum of min(p, q~) elsewhere, q~ being q without its top n - 1."""
  top = _top(q, n - 1)
  fixed = p[top].sum()
  p, q = np.delete(p, top), np.delete(q, top)
  return float(fixed + np.minimum(p, q / q.sum() if q.sum() > 0 else q).sum())


def _outside(q):
  """Returns 1 - q(H) for every prefix H, without cancellation."""
  return np.append(np.cumsum(q[::-1])[::-1][1:], 0.0)


def _both_inside(q):
  """Returns Q(H) for every prefix, for two samples: s - (1 - s) sum q / (1 - q), with s = q(H)."""
  others = 1 - q
  others[q > 0.5] = [np.delete(q, i).sum() for i in np.flatnonzero(q > 0.5)]  # no cancellation
  return np.cumsum(q) - _outside(q) * np.cumsum(q / others)


def _smallest_gap(s, inside_p, race):
  """Returns min P(H) - Q(H) over the prefixes H; Q is evaluated only where it is needed.

  s = q(H). Along growing sets Q is convex as a function of q(H) (the paper's q-convexity), so that
  between two prefixes it lies below its chord: prefixes that cannot have the minimum are never
  evaluated.
  """
  last = s.size - 1
  cuts = np.searchsorted(s, np.linspace(0, s[-1], SEGMENTS))
  cuts = np.unique(np.clip(np.concatenate([[0, last], race.heavy, cuts]), 0, last))
  inside, open_ = race.all_inside(cuts), np.arange(s.size)
  while True:
    best = (inside_p[cuts] - np.minimum(inside, 1)).min()
    lowest = inside_p[open_] - np.interp(s[open_], s[cuts], inside)
    open_ = np.setdiff1d(open_[lowest < best - TOLERANCE], cuts, assume_unique=True)
    if not open_.size:
      return best
    new = open_[:: -(-open_.size // SEGMENTS)]
    order = np.argsort(np.append(cuts, new))
    inside = np.append(inside, race.all_inside(new))[order]
    cuts = np.append(cuts, new)[order]
