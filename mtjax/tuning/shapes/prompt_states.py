"""PPD's dynamic sparse trees: a state machine over trees of candidates and prompt tokens."""

import dataclasses
import enum
import heapq
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mtjax.tuning.shapes.any_ranks import AnyRanks, best_of_any_ranks
from mtjax.tuning.shapes.rated import RatedTree, Rates, check_rates, rate


class AfterNothing(enum.Enum):
  """What a round may draft when the one before it accepted no candidate."""

  # The root carries all k prompt tokens in every round, so the next tree is that of state k.
  ROOT_CHAIN = "root chain"
  # The code of the paper counts a round that drafts nothing in between. For its published trees.
  EMPTY_ROUND = "empty round"


@dataclasses.dataclass(frozen=True)
class PromptTree:
  """The tree of one state. Behind every candidate stands a chain of prompt tokens."""

  candidates: RatedTree
  prompts: tuple[int, ...]  # length of the chain behind each node; the root's is k

  @property
  def entries(self) -> int:
    """Entries of the target's forward pass: the root, the candidates and all prompt tokens."""
    return self.candidates.topology.size + sum(self.prompts)

  @property
  def accepted(self) -> float:
    """Expected number of candidates that are accepted."""
    return self.candidates.expected_tokens - 1

  @property
  def stops(self) -> Float[np.ndarray, " N"]:
    """For each node, the probability that it is the last one accepted."""
    stop = np.array(self.candidates.reach)
    for node, parent in enumerate(self.candidates.topology.parent[1:], 1):
      stop[parent] -= self.candidates.reach[node]
    return stop


@dataclasses.dataclass(frozen=True)
class PromptStates:
  """k trees. The chain behind the last accepted node is the state of the next round.

  The tree of state m has depth m at most: m prompt tokens guessed its candidates.
  """

  trees: tuple[PromptTree, ...]  # of state m at index m - 1
  transition: Float[np.ndarray, "S S"]  # [i, j]: P(next state j | state i)
  stationary: Float[np.ndarray, " S"]
  accepted: float  # candidates per round in the long run: sum of stationary * tree.accepted
  states: tuple[int, ...]  # the state of each index of `transition`; 0 is the empty round

  @property
  def expected_tokens(self) -> float:
    """Tokens per round in the long run, the one after the accepted candidates included."""
    return 1 + self.accepted

  @property
  def max_entries(self) -> int:
    """The largest number of entries of a state: what a static program is compiled for."""
    return max(tree.entries for tree in self.trees)

  def next_state(self, state: int, last: int) -> int:
    """Returns the state after a round of `state` whose last accepted node is `last`; 0: the root.

    The root's chain makes it k, whatever happened before.
    """
    return self.trees[state - 1].prompts[last]

  def seconds(self, seconds_of: Float[np.ndarray, " M"]) -> float:
    """Returns the mean time of a round in the long run; seconds_of[n] is that of n entries."""
    alone = 1 + len(self.trees)  # the root and its chain
    each = [self.trees[state - 1].entries if state else alone for state in self.states]
    if max(each) >= len(seconds_of):
      raise ValueError(
        f"a state has {max(each)} entries, and times are known below {len(seconds_of)}"
      )
    return float(self.stationary @ seconds_of[each])


def prompt_states(
  rates: Rates,
  size: int,
  *,
  first: int = 10,
  after_nothing: AfterNothing = AfterNothing.ROOT_CHAIN,
) -> PromptStates:
  """Returns the best state machine of PPD (2405.18628) for a budget.

  The tree of state m holds n_m candidates, the most probable paths of at most m steps, and at first
  k prompt tokens behind each. Prompt tokens are taken away one by one until candidates and prompt
  tokens are `size`: always the one that costs least, p_c (f_j - f_(j - 1)) for the j-th token of
  node c, where p_c is the probability that c is accepted last and f_j the accepted candidates of
  the tree of state j. One token stays behind every node. n_1 is `first`, the others are searched
  from size / 4 to size / 2 for the most accepted candidates in the long run.

  rates [k, K]: P(the candidate of rank r is right | its parent was), by depth; k prompt tokens.
  size: candidates and prompt tokens; the root and its own k prompt tokens come on top of it.
  Raises ValueError for a size too small for `first` candidates.
  """
  check_rates(rates)
  k = rates.shape[0]
  first = min(first, rates.shape[1])
  if size < 4 or size < 2 * first:
    raise ValueError(
      f"size must hold {first} candidates with a prompt token each and be at least 4, got {size}"
    )
  best = [best_of_any_ranks(rates, size + 1, height=depth + 1) for depth in range(k)]
  ranges = [range(max(size // 4, 1), size // 2 + 1)] * (k - 1)
  found = None
  cache: dict[tuple[int, int], _Candidates] = {}
  for counts in itertools.product((first,), *ranges):
    for depth, count in enumerate(counts):
      if (depth, count) not in cache:
        cache[depth, count] = _Candidates.of(best[depth], count, rates)
    trees = [cache[depth, count] for depth, count in enumerate(counts)]
    accepted = np.array([one.rated.expected_tokens - 1 for one in trees])
    prompts = [one.prompts(accepted, size) for one in trees]
    chain = _chain([one.stop for one in trees], prompts, k, after_nothing)
    stationary = _stationary(chain)
    value = float(stationary[-k:] @ accepted)
    if found is None or value > found[0]:
      found = value, trees, prompts, chain, stationary
  assert found is not None
  value, trees, prompts, chain, stationary = found
  states = tuple(range(k + 1)) if len(chain) > k else tuple(range(1, k + 1))
  made = tuple(
    PromptTree(one.rated, (k, *chains)) for one, chains in zip(trees, prompts, strict=True)
  )
  return PromptStates(made, chain, stationary, value, states)


def best_prompt_states(
  rates: Rates, sizes: Sequence[int], seconds_of: Float[np.ndarray, " M"]
) -> PromptStates:
  """Returns the state machine of the size with the most expected tokens per second.

  PPD's choice by hardware: expected_tokens / seconds, both in the long run. sizes: as `size` of
  `prompt_states`. seconds_of[n]: the time of a round whose pass has n entries per row. Raises
  ValueError for no size, and for times that are not known for all entries.
  """
  if not sizes:
    raise ValueError("give at least one size to choose from")
  each = [prompt_states(rates, size) for size in sizes]
  return max(each, key=lambda one: one.expected_tokens / one.seconds(seconds_of))


@dataclasses.dataclass(frozen=True)
class _Candidates:
  """The candidates of one state, and the probability that each is accepted last."""

  rated: RatedTree
  stop: Float[np.ndarray, " N"]

  @classmethod
  def of(cls, best: AnyRanks, count: int, rates: Rates) -> "_Candidates":
    rated = rate(best.tree(count + 1), rates)
    return cls(rated, PromptTree(rated, ()).stops)

  def prompts(self, accepted: Float[np.ndarray, " S"], size: int) -> list[int]:
    """Returns the length of the chain behind each candidate."""
    k, stop = len(accepted), self.stop[1:]
    gain = np.diff(accepted, prepend=0.0)
    chains = [k] * len(stop)
    heap = [(p * gain[k - 1], node) for node, p in enumerate(stop)] if k > 1 else []
    heapq.heapify(heap)
    extra = len(stop) + sum(chains) - size
    while extra > 0 and heap:
      _, node = heapq.heappop(heap)
      chains[node] -= 1
      extra -= 1
      if chains[node] > 1:
        heapq.heappush(heap, (stop[node] * gain[chains[node] - 1], node))
    return chains


def _chain(stops, prompts, k, after_nothing) -> Float[np.ndarray, "S S"]:
  empty = after_nothing is AfterNothing.EMPTY_ROUND
  out = np.zeros((k + 1, k + 1))
  out[0, k] = 1.0
  for state, (stop, chains) in enumerate(zip(stops, prompts, strict=True), 1):
    np.add.at(out[state], [0 if empty else k, *chains], stop)
  return out if empty else out[1:, 1:]


def _stationary(transition: Float[np.ndarray, "S S"]) -> Float[np.ndarray, " S"]:
  count = len(transition)
  equations = np.vstack([transition.T - np.eye(count), np.ones(count)])
  return np.linalg.lstsq(equations, np.eye(count + 1)[count], rcond=None)[0]
