"""The best trees: against every tree there is, and against published ones."""

import functools
import heapq
import itertools

import numpy as np
import pytest

from mtjax.trees import EAGLE_25, Topology, chain
from mtjax.trees.encodings import to_paths
from mtjax.tuning.shapes import (
  AfterNothing,
  best_in_order,
  best_of_any_ranks,
  best_prompt_states,
  prompt_states,
  rate,
)
from tests.tuning.published import PPD_7B, PPD_13B, PPD_13B_60, SEQUOIA

FALLING, OTHER = (0.6, 0.2, 0.1, 0.05), (0.2, 0.6, 0.1)


def each_depth(row, depths):
  return np.tile(np.array(row), (depths, 1))


def random_rates(seed, depths=4, width=3):
  """Returns rates that differ from depth to depth and fall nowhere in particular."""
  rng = np.random.default_rng(seed)
  return rng.dirichlet(np.ones(width + 1), depths)[:, :width]


@functools.cache
def shapes(nodes, height, width, gaps):
  """Returns every tree of `nodes` nodes as paths; `gaps`: a rank may be left out."""

  def forests(nodes, height, ranks):
    if nodes == 0:
      return [()]
    if not ranks or height == 0:
      return []
    out = list(forests(nodes, height, ranks[1:])) if gaps else []
    for own in range(1, nodes + 1):
      for below in forests(own - 1, height - 1, tuple(range(width))):
        first = ((ranks[0],), *((ranks[0], *path) for path in below))
        out += [first + rest for rest in forests(nodes - own, height, ranks[1:])]
    return out

  return forests(nodes - 1, height, tuple(range(width)))


def worth(paths, rates):
  return 1 + sum(np.prod([rates[d, r] for d, r in enumerate(path)]) for path in paths)


@pytest.mark.parametrize("seed", range(3))
def test_the_most_probable_paths_are_the_best_of_all_trees(seed):
  rates = random_rates(seed)
  best = best_of_any_ranks(rates, 6)
  for nodes in range(1, 7):
    exhaustive = max(worth(paths, rates) for paths in shapes(nodes, 4, 3, gaps=True))
    assert best.expected[nodes] == pytest.approx(exhaustive, abs=1e-12)
    assert rate(best.tree(nodes), rates).expected_tokens == pytest.approx(exhaustive, abs=1e-12)


@pytest.mark.parametrize("rates", [random_rates(0), random_rates(1), each_depth(OTHER, 4)])
def test_the_program_of_sequoia_is_the_best_of_all_trees_in_order(rates):
  best = best_in_order(rates, 9)
  for nodes in range(1, 10):
    exhaustive = max(worth(paths, rates) for paths in shapes(nodes, 4, 3, gaps=False))
    assert best.expected[nodes] == pytest.approx(exhaustive, abs=1e-12)
    assert rate(best.tree(nodes), rates).expected_tokens == pytest.approx(exhaustive, abs=1e-12)


@pytest.mark.parametrize("gaps", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_up_to_twelve_nodes_no_distribution_of_nodes_is_better(seed, gaps):
  rates = random_rates(seed, depths=6)
  build = best_of_any_ranks if gaps else best_in_order

  @functools.cache
  def value(depth, nodes):
    """The maximum over all numbers of nodes that the children of one node may own."""
    if nodes == 1 or depth == len(rates):
      return 1.0 if nodes == 1 else -np.inf
    parts = itertools.product(range(nodes), repeat=rates.shape[1])
    allowed = (p for p in parts if sum(p) == nodes - 1 and (gaps or list(p) == packed(p)))
    return 1 + max(
      sum(r * value(depth + 1, n) for r, n in zip(rates[depth], p, strict=True) if n)
      for p in allowed
    )

  def packed(parts):
    return [n for n in parts if n] + [0] * list(parts).count(0)

  best = build(rates, 12)
  assert best.expected[1:] == pytest.approx([value(0, n) for n in range(1, 13)], abs=1e-12)


def test_trees_in_order_are_worth_what_was_derived():
  best = best_in_order(each_depth(FALLING, 7), 32)
  known = {6: 2.5056, 8: 2.7456, 12: 3.06736, 16: 3.30936, 24: 3.640816, 32: 3.86849}
  assert {n: round(best.expected[n], 6) for n in known} == pytest.approx(known, abs=5e-6)
  assert best.expected == pytest.approx(best_of_any_ranks(each_depth(FALLING, 7), 32).expected)


def best_first(rates, nodes):
  """Returns the worth of the tree that always adds the best next child, as Medusa grows it."""
  heap, out = [(-1.0, 0, 1.0, 0)], 0.0  # -P, depth, P of the parent, place
  for _ in range(nodes):
    negative, depth, above, place = heapq.heappop(heap)
    out -= negative
    if depth < len(rates):
      heapq.heappush(heap, (negative * rates[depth, 0], depth + 1, -negative, 0))
    if depth and place + 1 < rates.shape[1]:
      heapq.heappush(heap, (-above * rates[depth - 1, place + 1], depth, above, place + 1))
  return out


def test_growing_the_best_next_child_is_not_the_best_tree_in_order():
  """The negative control: an early sibling of low rate opens the way to a better one."""
  rates = each_depth(OTHER, 5)
  assert best_in_order(rates, 8).expected[7:] == pytest.approx([2.568, 2.668])
  assert best_first(rates, 7) == pytest.approx(2.452)
  falling = each_depth(FALLING, 7)
  assert best_first(falling, 32) == pytest.approx(best_in_order(falling, 32).expected[32])


def test_the_published_tree_of_sequoia():
  rates = each_depth(SEQUOIA, 9)
  best = best_in_order(rates, 32)
  assert best.tree(4) == chain(3)
  known = {1: 1, 2: 1.634183, 4: 2.291432, 8: 2.732173, 16: 3.130289, 32: 3.500739}
  assert {n: round(float(best.expected[n]), 6) for n in known} == pytest.approx(known, abs=5e-6)


def test_the_best_tree_has_no_node_that_is_worth_nothing():
  rates = np.array([[0.5, 0.0], [0.0, 0.0]])
  for build in (best_in_order, best_of_any_ranks):
    best = build(rates, 6)
    assert best.tree(6) == chain(1) and best.expected[-1] == 1.5 and len(best.expected) == 7
    assert best.tree(1) == Topology((-1,), (0,))


def test_a_tree_of_any_ranks_may_leave_ranks_out():
  best = best_of_any_ranks(np.array([[0.1, 0.7], [0.2, 0.3]]), 4)
  assert to_paths(best.tree(3)) == [[1], [1, 1]] and best.expected[3] == pytest.approx(1.91)
  assert to_paths(best_in_order(np.array([[0.1, 0.7], [0.2, 0.3]]), 4).tree(3)) == [[0], [1]]


def test_reach_is_the_product_of_the_rates_and_nothing_without_a_rate():
  rated = rate(EAGLE_25, each_depth(FALLING, 3))
  assert rated.reach[0] == 1 and rated.reach[1] == 0.6
  paths = to_paths(EAGLE_25)
  assert rated.reach[1 + paths.index([0, 1, 1])] == pytest.approx(0.6 * 0.2 * 0.2)
  assert rated.reach[1 + paths.index([0, 0, 0, 1])] == 0


def as_paths(text):
  return {tuple(map(int, path)) for path in text.split()}


@pytest.mark.parametrize("after_nothing", AfterNothing)
def test_the_published_trees_of_ppd(after_nothing):
  found = prompt_states(PPD_13B, 60, after_nothing=after_nothing)
  for state, text in PPD_13B_60.items():
    tree = found.trees[state - 1]
    assert {tuple(path) for path in to_paths(tree.candidates.topology)} == as_paths(text)
    assert set(tree.prompts[1:]) == {3 if state == 1 else 2}
  accepted = {AfterNothing.EMPTY_ROUND: 1.1241, AfterNothing.ROOT_CHAIN: 1.3055}
  assert found.accepted == pytest.approx(accepted[after_nothing], abs=2e-5)
  assert [tree.accepted for tree in found.trees] == pytest.approx(
    [0.8575, 1.3016, 1.3258], abs=1e-4
  )


def test_the_published_sizes_of_ppd():
  found = prompt_states(PPD_7B, 105, after_nothing=AfterNothing.EMPTY_ROUND)
  sizes = [(t.candidates.topology.size - 1, sum(t.prompts[1:])) for t in found.trees]
  assert sizes == [(10, 30), (33, 72), (34, 71)] and found.max_entries == 109
  assert found.accepted == pytest.approx(1.18407, abs=2e-5)


def test_the_state_machine_of_prompts_is_a_chain_of_markov():
  """Its long run is what a simulation of accepted nodes gives, and rounds last as they do."""
  found = prompt_states(PPD_13B, 24)
  assert found.transition.sum(axis=1) == pytest.approx(1) and found.states == (1, 2, 3)
  rng, state, accepted, visits = np.random.default_rng(0), 3, 0, np.zeros(3)
  last = [rng.choice(len(t.stops), size=4000, p=t.stops) for t in found.trees]
  for step in range(4000):
    visits[state - 1] += 1
    node = int(last[state - 1][step])
    accepted += found.trees[state - 1].candidates.topology.depth[node]
    state = found.next_state(state, node)
  assert accepted / 4000 == pytest.approx(found.accepted, abs=0.05)
  assert visits / 4000 == pytest.approx(found.stationary, abs=0.03)
  seconds = found.seconds(1.0 + np.arange(40.0))
  entries = [tree.entries for tree in found.trees]
  assert seconds == pytest.approx(found.stationary @ (1.0 + np.array(entries)))
  with pytest.raises(ValueError, match="times are known below 20"):
    found.seconds(np.ones(20))


@pytest.mark.parametrize("build", [best_in_order, best_of_any_ranks])
def test_what_is_no_table_of_rates_is_refused(build):
  good = np.array([[0.5, 0.2]])
  with pytest.raises(ValueError, match="from 0 to 1, got 0.2 to 1.5"):
    build(np.array([[1.5, 0.2]]), 3)
  with pytest.raises(ValueError, match="at depth 2 they add up to 1.2000"):
    build(np.array([[0.5, 0.2], [0.6, 0.6]]), 3)
  with pytest.raises(ValueError, match="at least one node"):
    build(good, 0)
  with pytest.raises(ValueError, match="reach down to depth 1, got height 2"):
    build(good, 3, height=2)
  with pytest.raises(ValueError, match="nan"):
    build(np.array([[np.nan, 0.2]]), 3)


def test_slow_entries_make_smaller_machines_of_prompts():
  entries = np.arange(70.0)
  sizes = (20, 40, 60)
  chosen = [best_prompt_states(PPD_13B, sizes, 1 + cost * entries) for cost in (0.0, 3e-3, 0.1)]
  assert [max(len(t.prompts) for t in one.trees) for one in chosen] == [21, 15, 11]
  speeds = [one.expected_tokens / one.seconds(1 + 3e-3 * entries) for one in chosen]
  assert speeds[1] == max(speeds)
  with pytest.raises(ValueError, match="at least one size"):
    best_prompt_states(PPD_13B, (), entries)


@pytest.mark.ill_typed
def test_rates_of_one_dimension_are_refused():
  with pytest.raises(ValueError, match=r"\[depths, ranks\]"):
    best_in_order(np.array([0.5]), 3)


def test_prompt_trees_too_small_for_their_first_state_are_refused():
  with pytest.raises(ValueError, match="must hold 10 candidates"):
    prompt_states(PPD_7B, 19)
