"""A few rounds to choose from, made once: cheap to compare while a program runs."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mtjax.tuning.competitors import Competitor, RoundKind
from mtjax.tuning.plan import PlannedRound, SpeculationPlan, plain_round, planned_rounds
from mtjax.tuning.shapes.rated import Rates


class _Table(NamedTuple):
  """The trees of all rounds of one drafter, as arrays."""

  place: Int[np.ndarray, " O"]  # of the rounds in the menu
  depth: Int[np.ndarray, "O N"]  # of a node, less 1; 0 for nodes that are not there
  rank: Int[np.ndarray, "O N"]
  there: Float[np.ndarray, "O N"]
  above: Float[np.ndarray, "O N N"]  # [o, n, m] is 1 where node m is n or an ancestor of it
  entries: Int[np.ndarray, " O"]
  steps: Int[np.ndarray, " O"]


class _Rated(NamedTuple):
  competitor: Competitor
  table: _Table
  expected: Float[np.ndarray, " O"]
  seconds: Float[np.ndarray, " O"]


@dataclasses.dataclass(frozen=True)
class Menu:
  """Rounds of speculation, with chains and trees of several drafters.

  What `mtjax.tuning.plan` finds among all trees, `plan` finds among these alone, in some 50
  microseconds in place of milliseconds: a round of a small model takes no longer than that. The
  best tree changes little with the rates, so the trees that are best in each domain of the profiles
  are enough of a choice.
  """

  rounds: tuple[PlannedRound, ...]

  def __post_init__(self):
    if not self.rounds or any(one.kind is RoundKind.PLAIN for one in self.rounds):
      raise ValueError("a menu has one or more rounds with drafts; plain decoding is always there")

  @classmethod
  def of(
    cls,
    competitors: Sequence[Sequence[Competitor]],
    sizes: Mapping[str, Sequence[int]],
    *,
    whole: Sequence[str] = (),
  ) -> "Menu":
    """Returns the best chains and trees of each drafter, under each of several sets of rates.

    competitors: by set, such as a domain. sizes: by drafter, the entries of its compiled programs.
    A size has the best tree of each set, and every chain that it is the smallest for. whole: the
    drafters that choose their drafts by themselves; a size of theirs is one round, a chain as long
    as it holds and as there are rates.
    """
    found: dict[tuple, PlannedRound] = {}
    for those in competitors:
      for one in those:
        for choice in _rounds(one, sizes[one.drafter], one.drafter in whole):
          found.setdefault((choice.drafter, choice.entries, choice.topology), choice)
    return cls(tuple(found.values()))

  def of_own_sizes(self, whole: Sequence[str]) -> "Menu":
    """Returns the menu where every tree has a program of its own.

    The entries of a round are then the nodes of its tree, and no tree stands there twice. whole:
    drafters that choose their drafts alone, whose rounds keep their entries.
    """
    found: dict[tuple, PlannedRound] = {}
    for one in self.rounds:
      size = one.entries if one.drafter in whole else one.topology.size
      found.setdefault((one.drafter, one.topology, size), dataclasses.replace(one, entries=size))
    return Menu(tuple(found.values()))

  def plan(self, competitors: Sequence[Competitor], *, min_gain: float = 0.0) -> SpeculationPlan:
    """Returns the best of the menu's rounds and plain decoding, as `mtjax.tuning.plan` does."""
    plain, found = plain_round(competitors), []
    for competitor, table, expected, seconds in self._rated(competitors):
      for number, (tokens, took) in enumerate(
        zip(expected.tolist(), seconds.tolist(), strict=True)
      ):
        found.append(self._round(competitor, table, number, tokens, took))
    ranking = sorted(
      [plain, *found], key=lambda one: (-one.tokens_per_second, one.entries, one.steps)
    )
    chosen = ranking[0]
    if chosen.tokens_per_second <= (1 + min_gain) * plain.tokens_per_second:
      chosen = plain
    return SpeculationPlan(chosen, plain, tuple(ranking))

  def fastest(
    self, competitors: Sequence[Competitor], reading: Mapping[str, float]
  ) -> PlannedRound:
    """Returns the round that takes the least time per token, plain decoding among them.

    Without `reading` it is the first of `plan`, found without an object for each of the others.
    reading: seconds per token that a drafter takes beside its rounds; 0 for those that lack here.
    """
    best = plain_round(competitors)
    least = best.seconds
    for competitor, table, expected, seconds in self._rated(competitors):
      each = seconds / expected + reading.get(competitor.drafter, 0.0)
      number = int(each.argmin())
      if each[number] < least:
        least = each[number]
        tokens, took = float(expected[number]), float(seconds[number])
        best = self._round(competitor, table, number, tokens, took)
    return best

  def _rated(self, competitors: Sequence[Competitor]) -> Iterator[_Rated]:
    """Yields each competitor with its table, expected tokens and seconds of each of its rounds."""
    for competitor in competitors:
      table = self._tables.get(competitor.drafter)
      if table is not None:
        seconds = competitor.latency.round_seconds(table.entries, table.steps)
        yield _Rated(competitor, table, _expected(table, competitor.rates), seconds)

  def _round(
    self, competitor: Competitor, table: _Table, number: int, tokens: float, seconds: float
  ) -> PlannedRound:
    known = self.rounds[table.place[number]]
    return PlannedRound(
      known.kind, known.drafter, known.topology, known.entries, known.steps,
      competitor.latency.batch, tokens, seconds,
    )  # fmt: skip

  @functools.cached_property
  def _tables(self) -> dict[str, _Table]:
    by_drafter: dict[str, list[int]] = {}
    for place, one in enumerate(self.rounds):
      by_drafter.setdefault(str(one.drafter), []).append(place)
    return {drafter: self._table(places) for drafter, places in by_drafter.items()}

  def _table(self, places: Sequence[int]) -> _Table:
    shapes = [self.rounds[place].topology for place in places]
    nodes = max(shape.size for shape in shapes) - 1
    depth, rank = np.zeros((2, len(shapes), nodes), int)
    there, above = np.zeros((len(shapes), nodes)), np.zeros((len(shapes), nodes, nodes))
    for number, shape in enumerate(shapes):
      for node in range(1, shape.size):
        depth[number, node - 1], rank[number, node - 1] = shape.depth[node] - 1, shape.rank[node]
        there[number, node - 1] = above[number, node - 1, node - 1] = 1
        if shape.parent[node]:
          above[number, node - 1] += above[number, shape.parent[node] - 1]
    return _Table(
      np.array(places), depth, rank, there, above,
      np.array([self.rounds[place].entries for place in places]),
      np.array([self.rounds[place].steps for place in places]),
    )  # fmt: skip


def _expected(table: _Table, rates: Rates) -> Float[np.ndarray, " O"]:
  """Returns the expected tokens of each round: `mtjax.tuning.shapes.rate` of all trees at once."""
  height, breadth = rates.shape
  known = (table.depth < height) & (table.rank < breadth)
  rate = rates[np.minimum(table.depth, height - 1), np.minimum(table.rank, breadth - 1)]
  # A rate of 0 is a logarithm that makes the product 0 all the same.
  log = np.log(np.maximum(np.where(known, rate, 0.0), 1e-30))
  reach = np.exp(np.einsum("onm,om->on", table.above, log)) * table.there
  return 1.0 + reach.sum(axis=1)


def _rounds(competitor: Competitor, sizes: Sequence[int], whole: bool) -> Iterator[PlannedRound]:
  latency, limit = competitor.latency, max(sizes)
  if whole:
    for size in sizes:
      shape = competitor.chain(min(competitor.max_height, size - 1))
      took = float(latency.round_seconds(size, shape.height))
      yield PlannedRound(
        RoundKind.CHAIN, competitor.drafter, shape, size, shape.height, latency.batch, 1.0, took
      )
    return
  for size in sorted(sizes):
    # The best tree of a size is the best over its heights.
    ranked = [one for one in planned_rounds(competitor, sizes=[size]) if one.entries == size]
    trees = [one for one in ranked if one.kind is RoundKind.TREE]
    if trees:
      yield max(trees, key=lambda one: one.tokens_per_second)
  for one in planned_rounds(competitor, sizes=sizes):
    if one.kind is RoundKind.CHAIN and one.topology.size <= limit:
      yield one
