"""Decoding that is simulated: sampled acceptance along trees, and times of a curve.

The planner computes an expectation from a tree's structure. Here rounds are sampled one by one, so
that what the planner says can be held against something that does not share its formulas.
"""

import dataclasses
import heapq
import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from mtjax.trees import Topology, chain, k_ary
from mtjax.trees.encodings import Path, from_paths
from mtjax.tuning.competitors import Competitor, Siblings
from mtjax.tuning.profiles.latency import LatencyCurve
from mtjax.tuning.shapes.rated import Rates, check_rates


@dataclasses.dataclass(frozen=True)
class SimulatedTree:
  """A tree with the speed that simulated rounds had."""

  topology: Topology
  tokens: float  # per row and round
  seconds: float  # per round
  batch: int

  @property
  def tokens_per_second(self) -> float:
    """Tokens per second of the whole batch."""
    return self.batch * self.tokens / self.seconds


def accepted_ranks(
  rates: Rates, rounds: int, rng: np.random.Generator
) -> Int[np.ndarray, "rounds H"]:
  """Returns for each round and depth the rank that would be accepted there, or -1 for none.

  The rate of a rank is that of the whole profile, so one sample says for every tree how far it is
  accepted: trees that are compared meet the same luck. Raises ValueError for rates that are none.
  """
  check_rates(rates)
  above = np.cumsum(rates, axis=1)
  found = np.sum(rng.random((rounds, len(rates)))[:, :, None] >= above, axis=2)
  return np.where(found < rates.shape[1], found, -1)


def walk(
  topology: Topology, ranks: Int[np.ndarray, "R H"]
) -> tuple[Int[np.ndarray, "R P"], Int[np.ndarray, " R"]]:
  """Returns the accepted path of each round, [R, height + 1], and its length, the root included.

  They are what a verifier's verdicts hold: the nodes of the path, and 0 behind its end.
  """
  rounds, depths = ranks.shape
  breadth = max(topology.rank) + 1
  child = np.full((topology.size, breadth), -1)
  for node, parent in enumerate(topology.parent[1:], 1):
    child[parent, topology.rank[node]] = node
  path, length = np.zeros((rounds, topology.height + 1), int), np.ones(rounds, int)
  node, going = np.zeros(rounds, int), np.ones(rounds, bool)
  for depth in range(min(topology.height, depths)):
    rank = ranks[:, depth]
    known = (rank >= 0) & (rank < breadth)
    following = np.where(known, child[node, np.where(known, rank, 0)], -1)
    going = going & (following >= 0)
    node = np.where(going, following, node)
    path[:, depth + 1] = np.where(going, node, 0)
    length += going
  return path, length


def simulate(
  topology: Topology, ranks: Int[np.ndarray, "R H"], curve: LatencyCurve
) -> SimulatedTree:
  """Returns the speed of rounds with a tree: their tokens, over the curve's times of each round.

  A tree of the root alone is plain decoding. Raises ValueError for a tree larger or deeper than the
  times that are known.
  """
  if topology.size == 1:
    return SimulatedTree(topology, 1.0, curve.plain, curve.batch)
  _, length = walk(topology, ranks)
  seconds = float(curve.round_seconds(topology.size, topology.height))
  return SimulatedTree(topology, float(length.mean()), seconds, curve.batch)


def grid(
  competitor: Competitor, *, sizes: Sequence[int], rng: np.random.Generator, others: int = 100
) -> list[Topology]:
  """Returns the trees that a plan is compared with.

  They are plain decoding, chains of all lengths, all trees whose nodes of one depth have the same
  number of children (which does not rise with depth), the most probable paths of every size and
  depth under these rates, and `others` random ones. A drafter of chains has chains alone.
  """
  limit, height = max(sizes), min(competitor.max_height, max(sizes) - 1)
  breadth = competitor.rates.shape[1]
  found = [chain(length) for length in range(height + 1)]
  if competitor.siblings is Siblings.ONE or breadth == 1:
    return found
  found += _even(limit, height, breadth)
  found += [
    _likely(size, depth, competitor.rates, competitor.siblings is Siblings.IN_ORDER)
    for size in sizes
    for depth in range(1, height + 1)
  ]
  found += [_random(limit, height, breadth, rng) for _ in range(others)]
  return [one for one in dict.fromkeys(found) if one.size <= limit]


def best_of(
  trees: Iterable[Topology], ranks: Int[np.ndarray, "R H"], curve: LatencyCurve
) -> SimulatedTree:
  """Returns the fastest of the trees in simulated rounds."""
  return max((simulate(one, ranks, curve) for one in trees), key=lambda one: one.tokens_per_second)


@dataclasses.dataclass(frozen=True)
class SimulatedPlan:
  """A planned tree beside the best of a grid, both in the same simulated rounds."""

  planned: SimulatedTree
  best: SimulatedTree
  plain: SimulatedTree
  trees: int  # that were compared

  @property
  def share(self) -> float:
    """The planned tree's speed over that of the grid's best; above 1 where the plan is better."""
    return self.planned.tokens_per_second / self.best.tokens_per_second


def against_grid(
  planned: Topology,
  competitor: Competitor,
  *,
  sizes: Sequence[int] = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256),
  rounds: int = 20_000,
  seed: int = 0,
) -> SimulatedPlan:
  """Returns a planned tree and the best of a grid (`grid`) under a competitor's rates and times.

  All trees are first compared on a tenth of the rounds, the 30 fastest then on all, which are other
  rounds: so the best one is not the luckiest. Raises ValueError as `simulate` does.
  """
  rng, curve = np.random.default_rng(seed), competitor.latency
  sizes = [size for size in sizes if size <= curve.max_entries]
  trees = grid(competitor, sizes=sizes, rng=rng)
  few = accepted_ranks(competitor.rates, max(rounds // 10, 1), rng)
  ranked = sorted(trees, key=lambda one: -simulate(one, few, curve).tokens_per_second)
  ranks = accepted_ranks(competitor.rates, rounds, rng)
  return SimulatedPlan(
    simulate(planned, ranks, curve),
    best_of([chain(0), *ranked[:30]], ranks, curve),
    simulate(chain(0), ranks, curve),
    len(trees),
  )


def _even(limit: int, height: int, breadth: int) -> Iterator[Topology]:
  """Yields trees with the same number of children for all nodes of a depth, not rising."""
  for depth in range(1, height + 1):
    for counts in itertools.combinations_with_replacement(range(breadth, 0, -1), depth):
      if 1 + sum(itertools.accumulate(counts, operator.mul)) <= limit:
        yield k_ary(counts)


def _likely(size: int, height: int, rates: Rates, in_order: bool) -> Topology:
  """Returns the tree of the `size` - 1 most probable paths of up to `height` steps."""

  def children(path: Path, chance: float) -> Iterator[tuple[float, Path]]:
    if len(path) < height:
      row = rates[len(path)].tolist()
      yield from ((-chance * rate, (*path, rank)) for rank, rate in enumerate(row))

  chosen: set[Path] = {()}
  heap = list(children((), 1.0))
  heapq.heapify(heap)
  while heap and len(chosen) < size:
    chance, path = heapq.heappop(heap)
    if not chance:
      break
    # In order, the siblings before it come with it.
    siblings = range(path[-1] + 1) if in_order else path[-1:]
    chosen |= {(*path[:-1], rank) for rank in siblings}
    for one in children(path, -chance):
      heapq.heappush(heap, one)
  paths = sorted(chosen - {()}, key=lambda path: (len(path), path))
  return from_paths(paths)


def _random(limit: int, height: int, breadth: int, rng: np.random.Generator) -> Topology:
  size = int(rng.integers(2, limit + 1))
  heads: list[Path] = [(0,)]
  chosen: list[Path] = []
  while heads and len(chosen) < size - 1:
    path = heads.pop(int(rng.integers(len(heads))))
    chosen.append(path)
    if path[-1] + 1 < breadth:
      heads.append((*path[:-1], path[-1] + 1))
    if len(path) < height:
      heads.append((*path, 0))
  return from_paths(chosen)
