"""Plans against simulated decoding: sampled walks and times of a curve, without its formulas."""

import json

import numpy as np
import pytest

from mtjax.bench.planning.simulated import compare, curves, first_layers
from mtjax.trees import Topology, chain, k_ary
from mtjax.tuning import Competitor, Siblings, plan
from mtjax.tuning.roofline import published_shape
from mtjax.tuning.shapes import rate
from mtjax.tuning.simulation import accepted_ranks, against_grid, grid, simulate, walk
from tests.source import ROOT
from tests.tuning.published import PPD_7B
from tests.tuning.test_plan import line

RATES = np.tile([0.62, 0.13, 0.06, 0.03], (6, 1))


@pytest.fixture(scope="module")
def machines():
  rows = json.loads((ROOT / "results" / "verification.json").read_text(encoding="utf-8"))["rows"]
  target = published_shape("135M")
  return curves(rows, ["h100", "v5e-8"], target, first_layers(target, 2), RATES, max_entries=64)


def test_each_machine_has_a_tree_of_its_own_within_three_percent_of_the_best_of_a_grid(machines):
  assert list(machines) == ["CPU, 1 thread", "CPU, 2 threads", "h100", "v5e-8"]
  found = compare(machines, RATES, rounds=10_000)
  assert len({one.planned.topology for one in found.values()}) == 4
  for name, one in found.items():
    assert one.trees > 150 and one.share >= 0.97, (name, one.share, one.best)
    assert one.planned.tokens_per_second > 1.1 * one.plain.tokens_per_second, name
  # Moved to another machine, a tree is not good enough: the grid notices wrong trees.
  cpu, h100 = found["CPU, 1 thread"].planned.topology, found["h100"].planned.topology
  moved = simulate(cpu, accepted_ranks(RATES, 20_000, np.random.default_rng(1)), machines["h100"])
  assert moved.tokens_per_second < 0.97 * found["h100"].best.tokens_per_second
  assert cpu.size < 16 < h100.size


def deepest(competitor):
  """The wrong planner that takes drafts for free: the largest tree and the deepest."""
  return competitor.trees(competitor.latency.max_entries, len(RATES)).tree(
    competitor.latency.max_entries
  )


def chains_alone(competitor):
  """The wrong planner that knows the first candidates only."""
  rates = competitor.rates[:, :1]
  return plan([Competitor("draft", rates, competitor.latency)]).choice.topology


@pytest.mark.parametrize("wrong", [deepest, chains_alone])
def test_a_wrong_planner_is_noticed(machines, wrong):
  two = {name: machines[name] for name in ("CPU, 1 thread", "h100")}
  found = compare(two, RATES, planner=wrong, rounds=4000)
  assert any(one.share < 0.97 for one in found.values())


def test_walks_reach_every_node_as_often_as_its_path_is_probable():
  shape = Topology((-1, 0, 0, 1, 1, 2, 3), (0, 0, 2, 0, 1, 1, 0))
  path, length = walk(shape, accepted_ranks(PPD_7B, 40_000, np.random.default_rng(0)))
  for node, reach in enumerate(rate(shape, PPD_7B).reach):
    share = np.mean((path == node).any(axis=1)) if node else 1.0
    assert share == pytest.approx(reach, abs=0.01), node
  assert length.min() == 1 and length.max() == 4
  assert np.all(path[np.arange(len(path)), length - 1] > 0) | np.any(length == 1)


def test_walks_end_where_rates_or_the_tree_do():
  ranks = np.array([[0, 0], [1, 0], [-1, 0], [0, -1], [5, 0]])
  path, length = walk(chain(3), ranks)
  assert length.tolist() == [3, 1, 1, 2, 1] and path[0].tolist() == [0, 1, 2, 0]
  alone = simulate(chain(0), ranks, line(1.0, 0.0, 0.1, plain=2.0))
  assert (alone.tokens, alone.seconds) == (1.0, 2.0)


@pytest.mark.parametrize("siblings", list(Siblings))
def test_a_grid_holds_trees_that_the_drafter_can_draft(siblings):
  competitor = Competitor("d", PPD_7B, line(1.0, 0.02, 0.1, entries=12, steps=3), siblings)
  trees = grid(competitor, sizes=(2, 4, 12), rng=np.random.default_rng(0))
  assert chain(0) in trees and chain(3) in trees and max(one.size for one in trees) <= 12
  assert len(set(trees)) == len(trees)
  if siblings is Siblings.ONE:
    assert all(one.is_chain for one in trees)
  else:
    assert k_ary((3, 2)) in trees
  if siblings is Siblings.IN_ORDER:
    assert all(one.rank == one.order for one in trees)


def test_the_best_of_a_grid_is_plain_decoding_where_drafts_cost_too_much():
  competitor = Competitor("d", PPD_7B, line(0.1, 1.0, 0.1, entries=12, steps=3))
  found = against_grid(chain(0), competitor, rounds=2000)
  assert found.best.topology == chain(0) and found.share == 1
  assert against_grid(chain(1), competitor, rounds=2000).share < 0.97
