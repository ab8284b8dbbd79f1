"""The largest probability that any lossless verifier accepts a whole path, estimated from drafts.

A verifier may judge a path as a whole (`block`, `traversal`), so that what holds for one node
(`mtjax.verify.optimal`) does not hold for the second and later drafts of a path. Let Y be the text
that comes out, T the tree, Y^d and T_d their prefixes of d tokens. Lossless means Y ~ p whatever T
and its randomness are, and at least d accepted drafts mean that Y^d is in T_d. For every
w: V^d -> [0, 1] that does not depend on T,

  P(Y^d in T_d) <= E w(Y^d) + E max_{y in T_d} (1 - w(y)),

since w(Y^d) + 1 - w(Y^d) = 1 where Y^d is in T_d (weak duality; 2502.18779 has it for d = 1). With
pi(y) = P(y in T_d) the first term is E sum_{y in T_d} w(y) p(y) / pi(y), so that

  sum_{y in T_d, p(y) < level pi(y)} p(y) / pi(y) + [T_d has a y with p(y) >= level pi(y)]

is an estimate of a bound from one tree, for every level: w is 1 where p(y) < level pi(y). On a
chain level 1 is sum_y min(p(y), q(y)), which one coupling reaches at all depths at once: there the
bound is the optimum of a verifier that knows all of p and q. On trees it may be larger. Level 0 is
P(T_d is not empty) and asks for no pi.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mtjax.trees import Topology
from mtjax.types import DraftScheme
from mtjax.verify.optimal import optimal_acceptance
from mtjax.verify.race import Race

LEVELS = (1.0, 0.75, 0.5, 0.25, 0.0)


class Paths(NamedTuple):
  """The distinct paths of one row's tree; the empty one first, every other after its beginning."""

  token: Int[np.ndarray, " M"]  # the last one of each path
  parent: Int[np.ndarray, " M"]  # the path without it; -1 for the empty one
  depth: Int[np.ndarray, " M"]
  p: Float[np.ndarray, " M"]  # target probability of the whole path
  above: Int[np.ndarray, " M"]  # node of the tree that `token` was drafted after

  @classmethod
  def of_tree(
    cls,
    token: Int[np.ndarray, " N"],
    parent: Int[np.ndarray, " N"],
    valid: Bool[np.ndarray, " N"],
    p: Float[np.ndarray, " N"],
  ) -> "Paths":
    """Builds the paths of one row's tree.

    p: target probability of each node's token after its parent's path; the root's is not read.

    Siblings with equal tokens, which independent samples may be, are one path.
    """
    place, known = {0: 0}, {}
    rows = [(0, -1, 0, 1.0, -1)]
    for node in np.flatnonzero(valid[1:]) + 1:
      above = int(parent[node])
      key = place[above], int(token[node])
      if key not in known:
        known[key] = len(rows)
        start = rows[key[0]]
        rows.append((key[1], key[0], start[2] + 1, start[3] * float(p[node]), above))
      place[int(node)] = known[key]
    return cls(*map(np.array, zip(*rows, strict=True)))

  def by_depth(self, values: np.ndarray, height: int) -> Float[np.ndarray, " H"]:
    """Returns sums, per depth, of one value per draft (the empty path has none)."""
    return np.bincount(self.depth[1:], values, minlength=height + 1)[1:]


class Sampled(NamedTuple):
  """How a tree was sampled."""

  scheme: DraftScheme
  breadth: int  # no node has more children
  # The shape of every tree that could have been sampled (where q runs out, every tree lacks the
  # same nodes). None: the tree grew where what was sampled led it.
  shape: Topology | None


def path_bounds(
  paths: Paths,
  height: int,
  sampled: Sampled,
  p: Float[np.ndarray, " V"],
  q: Float[np.ndarray, "N V"],
  n: int,
) -> Float[np.ndarray, "H L"]:
  """Returns estimates for each depth and each of LEVELS; inf where there is none.

  p: the target's probabilities after the root, which has n children. q: what each node's children
  were sampled from. The first depth is that of `optimal_acceptance`, which is exact. Of a tree that
  grew with its samples only that and level 0 are bounded: how likely a path was to be drafted
  depends on what else was.
  """
  out = np.full((height, len(LEVELS)), np.inf)
  drafted = paths.by_depth(np.ones(len(paths.p) - 1), height) > 0
  out[:, -1] = drafted
  if sampled.shape is not None:
    ratio = paths.p[1:] / np.maximum(inclusion(paths, sampled, q), np.finfo(float).tiny)
    for column, level in enumerate(LEVELS[:-1]):
      light = ratio < level
      out[:, column] = paths.by_depth(ratio * light, height) + (paths.by_depth(~light, height) > 0)
  if drafted[0]:
    out[0] = np.inf
    out[0, 0] = optimum(p, q[0], sampled, n)
  return out


def exact_bounds(paths: Paths, height: int) -> Float[np.ndarray, "H L"]:
  """Returns the same for drafts that are not sampled: sum_{y in T_d} p(y).

  Exact, and every lossless verifier of DELTA drafts reaches it.
  """
  return np.repeat(paths.by_depth(paths.p[1:], height)[:, None], len(LEVELS), axis=1)


def optimum(
  p: Float[np.ndarray, " V"], q: Float[np.ndarray, " V"], sampled: Sampled, n: int
) -> float:
  """Returns `optimal_acceptance` of the n children that a node has.

  A node of a tree that grew with its samples counts as having all the children that it could have
  had: the number that it has depends on which they are.
  """
  n = n if sampled.shape is not None else min(sampled.breadth, int(np.count_nonzero(q)))
  return optimal_acceptance(p, q, n, DraftScheme.WITH_REPLACEMENT if n == 1 else sampled.scheme)


def inclusion(
  paths: Paths, sampled: Sampled, q: Float[np.ndarray, "N V"]
) -> Float[np.ndarray, " drafts"]:
  """Returns, for each path but the empty one, the probability that another sample of a tree has it.

  Siblings sampled independently: over the shape's nodes below which the path may lie, from the
  leaves up, 1 - prod_c (1 - q(token) P(the rest is below c)). Siblings that are distinct: a path is
  at one node at most, so the probabilities of the nodes add up, from the root down.
  """
  shape = sampled.shape
  assert shape is not None
  children, levels = shape.children(), shape.levels()
  if sampled.scheme is DraftScheme.WITH_REPLACEMENT:
    above, odds = paths.above[1:], np.ones(len(paths.p))
    odds[1:] = q[above, paths.token[1:]] / q[above].sum(axis=1, dtype=np.float64)
    return np.array([_independent(_line(paths, i, odds), children, levels) for i in _drafts(paths)])
  at = [np.ones(1)]  # of each path: probability of being at each node of its depth
  chance = {}
  for i in _drafts(paths):
    depth, above = int(paths.depth[i]), int(paths.above[i])
    parents = [shape.parent[node] for node in levels[depth]]
    for n in {len(children[parent]) for parent in parents}:
      if (i, n) not in chance:
        family = np.flatnonzero(paths.above == above)
        chances = places(q[above], paths.token[family], n, sampled.scheme)
        chance |= {(member, n): chances[:, m] for m, member in enumerate(family.tolist())}
    before = dict(zip(levels[depth - 1], at[paths.parent[i]], strict=True))
    each = zip(levels[depth], parents, strict=True)
    at.append(
      np.array([before[up] * chance[i, len(children[up])][shape.order[node]] for node, up in each])
    )
  return np.array([chances.sum() for chances in at[1:]])


def places(
  q: Float[np.ndarray, " V"], tokens: Int[np.ndarray, " M"], count: int, scheme: DraftScheme
) -> Float[np.ndarray, "count M"]:
  """Returns [j, m]: the probability that sample j of `count` distinct siblings is tokens[m]."""
  q = np.asarray(q, np.float64)
  q = q / q.sum()
  out = np.zeros((count, tokens.size))
  out[0] = q[tokens]
  if count == 1:
    return out
  if scheme is DraftScheme.GREEDY_PLUS_ONE:
    top = np.argsort(-q, kind="stable")[: count - 1]
    out[:-1] = top[:, None] == tokens
    rest = np.delete(q, top).sum()
    out[-1] = np.where(np.isin(tokens, top), 0, q[tokens]) / (rest or 1)
  elif scheme is DraftScheme.PAIR:
    hub = np.argmax(q)
    rest = np.delete(q, hub).sum()
    out[1] = np.where(tokens == hub, rest, q[hub] * q[tokens] / (rest or 1))
  else:
    held, is_possible = np.flatnonzero(q), q[tokens] > 0
    race = Race(q[held], min(count, held.size))
    out[: race.n, is_possible] = race.places(np.searchsorted(held, tokens[is_possible]))
  return out


def _drafts(paths: Paths) -> range:
  return range(1, len(paths.p))


def _line(paths: Paths, i: int, values: Float[np.ndarray, " M"]) -> list[float]:
  """Returns the values of the tokens of path i, from the first token to the last."""
  out = []
  while i:
    out.append(float(values[i]))
    i = int(paths.parent[i])
  return out[::-1]


def _independent(line: list[float], children: list[list[int]], levels: list[list[int]]) -> float:
  below = dict.fromkeys(levels[len(line)], 1.0)
  for depth in range(len(line) - 1, -1, -1):
    below = {
      node: 1 - math.prod(1 - line[depth] * below[child] for child in children[node])
      for node in levels[depth]
    }
  return below[0]
