"""The gain of a store's drafts from earlier requests: tokens per forward after n of them.

No model runs: outputs are known. The texts that are measured teach the store nothing, so that
points of one curve differ only by what the store was warmed with.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from mtjax.bench.replay import Pair
from mtjax.draft.model_free.trie_store import NgramStore


@dataclasses.dataclass(frozen=True)
class CurvePoint:
  """The tokens and target forwards of each measured text after `requests` warm-up requests."""

  requests: int
  nodes: int  # number of nodes of the store's outputs
  tokens: tuple[int, ...]
  forwards: tuple[int, ...]

  @property
  def rate(self) -> float:
    """Returns tokens per forward over all texts."""
    return sum(self.tokens) / sum(self.forwards)

  @property
  def influences(self) -> np.ndarray:
    """Returns each text's contribution to the error of `rate`, a ratio of sums (linearized)."""
    tokens, forwards = np.array(self.tokens), np.array(self.forwards)
    return (tokens - self.rate * forwards) / forwards.sum()

  @property
  def error(self) -> float:
    """Returns the standard error of `rate`, over texts."""
    return math.sqrt((self.influences**2).sum())


def fall(curve: Sequence[CurvePoint]) -> tuple[float, float]:
  """Returns the largest (rate before - rate after) / its standard error, as difference and error.

  Both points measure the same texts, so the error is that of the paired difference. (0, 0) for a
  curve that never falls.
  """
  worst = (0.0, 0.0)
  for place, after in enumerate(curve):
    for before in curve[:place]:
      drop = before.rate - after.rate
      error = math.sqrt(((before.influences - after.influences) ** 2).sum())
      if drop > 0 and drop * worst[1] >= worst[0] * error:
        worst = (drop, error)
  return worst


def curves(
  stores: Sequence[NgramStore],
  warm: Sequence[Sequence[int]],
  pairs: Sequence[Pair],
  at: Sequence[int],
  *,
  size: int,
  depth: int = 12,
) -> list[list[CurvePoint]]:
  """Returns, per store, a point after the first n texts of `warm` for each n of `at`, which rises.

  The first store is warmed; the others share its counts and may differ only in their retrieval.
  size, depth: settings of the drafter `Trie`. Raises ValueError for points that do not rise or lie
  beyond the texts.
  """
  if list(at) != sorted(set(at)) or (at and not 0 <= at[0] <= at[-1] <= len(warm)):
    raise ValueError(f"warm-up points must rise from 0 to {len(warm)} at most, got {list(at)}")
  out: list[list[CurvePoint]] = [[] for _ in stores]
  tokens = tuple(len(text) for _, text in pairs)
  done = 0
  for requests in at:
    stores[0].warm(warm[done:requests])
    done = requests
    for store, points in zip(stores, out, strict=True):
      store.counts = stores[0].counts
      forwards = tuple(count_forwards(store, pair, size=size, depth=depth) for pair in pairs)
      points.append(CurvePoint(requests, store.counts.size, tokens, forwards))
  return out


def count_forwards(store: NgramStore, pair: Pair, *, size: int, depth: int = 12) -> int:
  """Returns the target forwards that decode a continuation, including prefill, as in `replay`."""
  prompt, text = pair
  (request,) = store.begin([prompt])
  place, forwards = 0, 0
  num_emitted = 1  # the token that prefill emits
  while True:
    forwards += 1
    store.read(request, text[place : place + num_emitted])
    place += num_emitted
    if place >= len(text):
      break
    tree = store.draft(request, size - 1, min(depth, size - 1))
    num_emitted = 1 + _accepted(tree.children, text[place:])
  store.finish(request)
  return forwards


def _accepted(children: Sequence[dict[int, int]], text: Sequence[int]) -> int:
  node = 0
  for count, token in enumerate(text):
    if token not in children[node]:
      return count
    node = children[node][token]
  return len(text)
