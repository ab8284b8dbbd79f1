"""The planner: published searches, closed forms, and exhaustive comparison over a grid."""

import dataclasses

import numpy as np
import pytest

from mtjax.trees import chain
from mtjax.tuning import Competitor, RoundKind, Siblings, plan
from mtjax.tuning.plan import expected_of, planned_rounds
from mtjax.tuning.profiles import MonotoneFit, fit_curve
from mtjax.tuning.profiles.latency import LatencyCurve
from mtjax.tuning.roofline import HARDWARE, MeshSize, ModelShape, predict_curve
from mtjax.tuning.shapes import best_in_order, best_of_any_ranks
from mtjax.types import DraftScheme
from tests.tuning.published import PPD_7B, SEQUOIA


def line(start, each, draft, *, batch=1, entries=64, steps=8, plain=None):
  """Returns times on a line in entries per row."""
  verify = [(n, start + each * n) for n in (1, entries)]
  drafts = [(d, draft * d) for d in (1, steps)]
  return fit_curve(batch, 0, verify=verify, draft=drafts, plain=plain)


def test_the_published_search_of_sequoia():
  """Budgets and times of its demo; the code charges one step more than the tree is deep."""
  budgets, target = (1, 2, 4, 8, 16, 32), (10.0, 10.0, 10.0, 12.0, 14.0, 18.0)
  steps = tuple(range(1, 10))
  curve = LatencyCurve(
    1, 0, MonotoneFit(budgets, target, target),
    MonotoneFit(steps, *[tuple(0.3 * (d + 1) for d in steps)] * 2), 0.0, 10.0,
  )  # fmt: skip
  competitor = Competitor("llama-68m", np.tile(SEQUOIA, (9, 1)), curve, Siblings.IN_ORDER)
  found = plan([competitor], sizes=budgets)
  assert (found.choice.topology, found.choice.kind, found.choice.entries) == (
    chain(3),
    RoundKind.CHAIN,
    4,
  )
  assert found.choice.expected_tokens == pytest.approx(2.291432, abs=1e-6)
  assert 1 / found.choice.tokens_per_second == pytest.approx(4.887774, abs=1e-6)
  assert found.speedup == pytest.approx(2.045921, abs=1e-6)
  falling = np.tile([0.6, 0.2, 0.1, 0.05], (9, 1))
  derived = plan([dataclasses.replace(competitor, rates=falling)], sizes=budgets)
  assert (derived.choice.entries, derived.choice.steps) == (16, 4)
  assert derived.speedup == pytest.approx(2.112774, abs=1e-6)


@pytest.mark.parametrize(
  ("accept", "cost", "length"),
  [(0.6, 0.02, 6), (0.6, 0.1, 3), (0.8, 0.05, 8), (0.8, 0.1, 6), (0.9, 0.02, 19), (0.9, 0.1, 10)],
)
def test_the_length_of_chains_is_that_of_the_closed_form(accept, cost, length):
  """Leviathan 2211.17192: a target whose pass costs the same for any number of entries."""
  curve = line(1.0, 0.0, cost, entries=30, steps=25)
  found = plan([Competitor("draft", np.full((25, 1), accept), curve)])
  assert found.choice.topology == chain(length)
  tokens = (1 - accept ** (length + 1)) / (1 - accept)
  assert found.choice.expected_tokens == pytest.approx(tokens)
  assert found.speedup == pytest.approx(tokens / (length * cost + 1))


@pytest.mark.parametrize("siblings", [Siblings.ANY_RANKS, Siblings.IN_ORDER])
def test_the_plan_is_the_best_of_the_whole_grid(siblings):
  rates, curve = PPD_7B, line(1.0, 0.02, 0.1, entries=24, steps=3)
  build = best_in_order if siblings is Siblings.IN_ORDER else best_of_any_ranks
  grid = {
    (n, d): build(rates, n, height=d).expected[n] / float(curve.round_seconds(n, d))
    for n in range(2, 25)
    for d in (1, 2, 3)
  }
  found = plan([Competitor("heads", rates, curve, siblings)])
  assert found.choice.tokens_per_second == pytest.approx(max(grid.values()))
  assert max(grid, key=grid.get) == (found.choice.entries, found.choice.steps)


def test_the_same_rates_and_other_times_give_other_trees():
  """PPD's lesson: the best tree on one machine is the wrong tree on the next."""
  shape = ModelShape(4096, 32, 8, 128, 14336, 3, 128256, (None,) * 32)
  small = dataclasses.replace(shape, width=1024, heads=8, mlp_width=4096, windows=(None,) * 4)
  rates = np.tile(PPD_7B, (2, 1))

  def best(name, batch, devices):
    curve = predict_curve(
      HARDWARE[name], shape, small, batch=batch, context=2048, mesh=MeshSize(model=devices)
    )
    return Competitor("draft", rates, curve, Siblings.IN_ORDER)

  here = {case: best(*case) for case in [("h100", 1, 1), ("v5e", 1, 8), ("v6e", 32, 4)]}
  plans = {case: plan([competitor]) for case, competitor in here.items()}
  assert len({found.choice.topology for found in plans.values()}) == 3
  for case, competitor in here.items():
    speeds = []
    for other in plans.values():
      moved = expected_of(competitor, other.choice)
      speeds.append(moved.tokens_per_second / plans[case].choice.tokens_per_second)
    assert max(speeds) == pytest.approx(1) and min(speeds) < 0.97


def test_drafters_chains_trees_and_plain_decoding_compete():
  curve = line(1.0, 0.01, 0.1, steps=3)
  good = Competitor("good", PPD_7B, curve)
  slow = Competitor("slow", PPD_7B, line(1.0, 0.01, 1.0, steps=3))
  found = plan([slow, good])
  assert found.choice.drafter == "good" and found.choice.kind is RoundKind.TREE
  assert [(one.drafter, one.kind) for one in found.ranking] == [
    ("good", RoundKind.TREE),
    ("good", RoundKind.CHAIN),
    (None, RoundKind.PLAIN),
    ("slow", RoundKind.TREE),
    ("slow", RoundKind.CHAIN),
  ]
  assert found.runner_up.kind is RoundKind.CHAIN and found.runner_up.drafter == "good"
  why = found.why()
  for part in ("good, a tree of", "runner-up: good, a chain of", "times that of plain decoding"):
    assert part in why
  assert f"{found.speedup:.3f}" in why and f"{found.choice.expected_tokens:.3f}" in why


def test_plain_decoding_wins_where_entries_cost_too_much():
  busy = Competitor("draft", np.full((4, 1), 0.9), line(0.1, 1.0, 0.1, batch=32, steps=4))
  found = plan([busy])
  assert found.choice.kind is RoundKind.PLAIN and found.speedup == 1 and found.choice.batch == 32
  assert found.choice.tokens_per_second == pytest.approx(32 / 1.1)
  assert found.choice.topology.size == 1 and "the plan is plain decoding" in found.why()


def test_speculation_must_gain_what_is_asked_of_it():
  one = Competitor("draft", np.full((1, 1), 0.5), line(1.0, 0.0, 0.4, plain=1.0))
  assert plan([one]).speedup == pytest.approx(1.5 / 1.4)
  assert plan([one], min_gain=0.1).choice.kind is RoundKind.PLAIN


def test_a_tree_smaller_than_its_program_pays_for_the_program():
  one = Competitor("draft", np.full((5, 1), 0.8), line(1.0, 0.05, 0.05, steps=5))
  found = plan([one], sizes=(1, 4, 16))
  assert found.choice.entries in (4, 16) and found.choice.topology.size <= found.choice.entries
  lengths = {c.topology.size: c.entries for c in planned_rounds(one, sizes=(1, 4, 16))}
  assert lengths == {2: 4, 3: 4, 4: 4, 5: 16, 6: 16}


def test_chains_of_any_ranks_take_the_best_rank():
  rates = np.array([[0.1, 0.7], [0.3, 0.2]])
  any_rank = Competitor("draft", rates, line(1.0, 0.0, 0.01))
  assert any_rank.chain(2).rank == (0, 1, 0)
  in_order = dataclasses.replace(any_rank, siblings=Siblings.IN_ORDER)
  assert in_order.chain(2).rank == (0, 0, 0) and in_order.chains()[:, 0].tolist() == [0.1, 0.3]
  only = dataclasses.replace(any_rank, siblings=Siblings.ONE)
  assert {one.kind for one in planned_rounds(only)} == {RoundKind.CHAIN}
  assert Siblings.of_scheme(DraftScheme.DELTA) is Siblings.ANY_RANKS
  assert Siblings.of_scheme(DraftScheme.WITHOUT_REPLACEMENT) is Siblings.IN_ORDER


def test_what_cannot_be_compared_is_refused():
  one = Competitor("draft", np.full((2, 1), 0.5), line(1.0, 0.0, 0.1))
  with pytest.raises(ValueError, match="at least one competitor"):
    plan([])
  with pytest.raises(ValueError, match="a name of its own"):
    plan([one, one])
  with pytest.raises(ValueError, match=r"one batch size, got \[1, 2\]"):
    plan([one, dataclasses.replace(one, drafter="b", latency=line(1.0, 0.0, 0.1, batch=2))])
  with pytest.raises(ValueError, match=r"1 to 64 entries.*'draft': got \[65\]"):
    plan([one], sizes=[65])
  with pytest.raises(ValueError, match="add up to"):
    Competitor("draft", np.full((2, 2), 0.6), one.latency)
