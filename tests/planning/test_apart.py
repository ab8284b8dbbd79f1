"""Drafters measured in programs of their own, as a job of several processes does."""

import dataclasses
import itertools
import math
import types
from unittest import mock

import numpy as np
import pytest

from mtjax import hosts
from mtjax.decode.generation import Generation
from mtjax.decode.method import Autoregressive
from mtjax.decode.speculative import Speculative
from mtjax.draft import ShapedTree
from mtjax.planning import auto
from mtjax.planning.calibration import (
  PlanRequest,
  apart,
  calibrate_apart,
  counting,
  sizes_apart,
)
from mtjax.planning.calibration.prompts import prompts_of
from mtjax.planning.store import VARIABLE
from mtjax.registry import candidates as registry
from mtjax.registry.auto import find_plan
from mtjax.registry.candidates import ShapeSizes, candidates_of
from mtjax.registry.configs import decode_config
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from mtjax.trees import chain
from mtjax.tuning.profiles import AcceptanceCounts, AcceptanceProfile, count_history
from tests.draft.drafters import LETTERS, PARAMS, SMALL, SMALL_PARAMS, TARGET

TEXT = TextModel(TARGET, PARAMS, LETTERS, "tiny")
DRAFT = TextModel(SMALL, SMALL_PARAMS, LETTERS, "small")
TEXTS = {"list": ["abcabcab"], "other": ["hijhij", "a"]}
REQUEST = PlanRequest(1, 24)
PLAIN, ENTRY, STEP, READING, PREFILL = 5e-3, 0.25e-3, 0.125e-3, 3e-3, 20e-3


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
  """Few programs, and a folder for plans."""
  monkeypatch.setattr(registry, "shape_sizes", lambda _: ShapeSizes((3,), (4,), 2))
  monkeypatch.setenv(VARIABLE, str(tmp_path / "plans"))


def candidates(*names):
  found = []
  for name in names:
    config = decode_config(name).to_dict()
    config |= dict(draft_model=DRAFT) if name.startswith("draft") else {}
    found += candidates_of(name, config, TEXT, {})
  return found


class Machine:
  """Says how long the rounds of every method take, on a machine that becomes slower and slower.

  No clock says how long the measuring itself took, so there are no more passes than needed.
  """

  def __init__(self, slower=1.1):
    self.slower, self.runs = slower, 0

  def __call__(self, text, rows, request, method, params, key):
    self.runs += 1
    slow = self.slower**key
    if isinstance(method, Autoregressive):
      return slow * PREFILL, slow * PLAIN
    height = method.drafter.height
    size = getattr(getattr(method.drafter, "topology", None), "size", height + 1)
    each = PLAIN + ENTRY * (size - 1) + STEP * height
    return slow * (PREFILL + READING), slow * each


def test_times_of_trees_are_told_apart_into_entries_and_steps(monkeypatch):
  monkeypatch.setattr(apart, "_run", Machine())
  lookup, _, tree = calibrate_apart(TEXT, candidates("lookup", "draft_tree"), REQUEST, texts=TEXTS)
  (curve,) = tree.latency.curves
  # The machine is slower in each of the five passes, and nothing but the third one says how much.
  slow = 1.1**2
  assert curve.plain == curve.alone == pytest.approx(slow * PLAIN)
  assert curve.verify.amount == (1, 2, 3, 4)
  np.testing.assert_allclose(curve.draft.fitted, [slow * STEP, 2 * slow * STEP])
  np.testing.assert_allclose(
    curve.verify.fitted, [slow * (PLAIN + ENTRY * more) for more in range(4)]
  )
  assert curve.start == pytest.approx(slow * READING)
  (curve,) = lookup.latency.curves
  assert curve.verify.amount == (1, 4)
  assert curve.round_seconds(4, 3) == pytest.approx(slow * (PLAIN + 3 * (ENTRY + STEP)))


def test_acceptance_is_that_of_decoding(monkeypatch):
  monkeypatch.setattr(apart, "_run", Machine())
  its = candidates("lookup", "draft")
  short, _, draft = calibrate_apart(TEXT, its, REQUEST, texts=TEXTS)
  prompts = prompts_of(TEXT, TEXTS, REQUEST)
  method = Speculative(its[0].arm.method.drafter)
  for domain, batches in prompts.items():
    counts = AcceptanceCounts.none(1, 1)
    for (row,) in batches:
      _, run = TEXT.generate([row], eos=(), method=method, max_tokens=12, history=True)
      counts += count_history(run.history[1:], shape=chain(3))
    found = short.acceptance.domains[domain]
    np.testing.assert_array_equal(found.tried, counts.tried)
    np.testing.assert_array_equal(found.accepted, counts.accepted)
    assert found.rounds == counts.rounds
  # Replayed: of the text's tokens, those that the draft model has in the first place.
  assert draft.acceptance.of == REQUEST.of(TEXT, its[-1])
  assert draft.acceptance.rates().shape == (2, 1)
  assert 0 < draft.acceptance.counts().accepted[0, 0] < draft.acceptance.counts().tried[0, 0]


def test_drafts_of_a_drafter_that_chooses_alone_count_by_depth(monkeypatch):
  """With two branches any draft of a depth may be the right one, and some rounds have none."""
  monkeypatch.setattr(apart, "_run", Machine())
  config = decode_config("lookup").to_dict()
  config["drafter"].update(length=2, branches=2)
  (lookup,) = candidates_of("lookup", config, TEXT, {})
  (found,) = calibrate_apart(TEXT, [lookup], REQUEST, texts=TEXTS)
  (curve,) = found.latency.curves
  assert curve.verify.amount == (1, 5) and curve.draft.amount == (1, 2)
  for domain, batches in prompts_of(TEXT, TEXTS, REQUEST).items():
    rows = list(itertools.chain(*batches))
    _, run = TEXT.generate(rows, eos=(), method=lookup.arm.method, max_tokens=12, history=True)
    trees = [tree for record in run.history[1:] for tree in record.rows if tree is not None]
    counts = found.acceptance.domains[domain]
    assert counts.rounds == len(trees) > sum(len(tree.parents) > 1 for tree in trees)
    assert counts.accepted.tolist() == [
      [sum(len(tree.path) > depth for tree in trees)] for depth in (1, 2)
    ]
    assert counts.tried[0, 0] >= len(trees) - len(rows)


@pytest.mark.parametrize(("temperature", "trees"), [(0.0, 1), (1.0, 4)])
def test_sampled_requests_are_counted_in_every_tree(monkeypatch, temperature, trees):
  """A greedy text says what is accepted in any tree; of sampled ones each tree has its own."""
  asked = []

  def measure(text, drafter, params, *, texts, of, **_):
    ((name, rows),) = texts.items()
    asked.append((drafter.topology, len(rows)))
    accepted = np.full((1, 1), len(asked))
    return AcceptanceProfile(of, {name: AcceptanceCounts(accepted + 1, accepted, len(asked) + 1)})

  monkeypatch.setattr(apart, "_run", Machine())
  monkeypatch.setattr(counting, "measure_acceptance", measure)
  its, request = candidates("draft_tree"), PlanRequest(8, 24, Sampling(temperature=temperature))
  (found,) = calibrate_apart(TEXT, its, request, texts={"list": ["abcab"]})
  assert len({tree for tree, _ in asked}) == trees <= len(its[0].trials(4)) == 4
  # One batch of 16 rows for each tree, of which the counts are summed.
  assert [rows for _, rows in asked] == [16] * trees
  assert found.acceptance.counts().accepted.item() == sum(range(1, trees + 1))


def test_a_round_is_one_of_the_whole_batch(monkeypatch):
  """Two rows that need 3 and 7 rounds, in 14 s after a first token that takes 2 s."""
  now = iter((0.0, 2.0, 16.0))
  monkeypatch.setattr(apart, "time", types.SimpleNamespace(perf_counter=lambda: next(now)))

  def stream(*_, every, on_finish, max_tokens, **__):
    assert every == max_tokens == 12
    yield [[1], [1]]
    yield [[2] * 11] * 2
    on_finish(Generation([], [], dict(target_forwards=12), [], rounds=[3, 7]))

  monkeypatch.setattr(apart, "stream", stream)
  assert apart._run(TEXT, [[1], [2]], PlanRequest(2, 24), Autoregressive(), None, 0) == (2.0, 2.0)


def test_what_differs_between_processes_is_refused_before_anything_is_measured(monkeypatch):
  told = []
  monkeypatch.setattr(hosts, "is_shared", lambda mesh: True)
  monkeypatch.setattr(hosts, "check_equal", lambda what, values: told.append((what, values)))
  monkeypatch.setattr(auto, "calibrate_apart", mock.Mock(side_effect=InterruptedError))
  for texts, measure in ((TEXTS, "once"), ({"a": ["b"]}, "once"), (TEXTS, "again")):
    with pytest.raises(InterruptedError):
      auto.plan_candidates(TEXT, candidates("lookup"), REQUEST, texts=texts, measure=measure)
  assert [what for what, _ in told] == ["request for a plan"] * 3
  first, other, again = (values for _, values in told)
  assert first["texts"] != other["texts"] and first["measure"] != again["measure"]
  assert len(first["candidates"]) == 2 and str(REQUEST.context) in first["request"]


def test_all_processes_have_the_profiles_of_the_first_ones_clock(monkeypatch):
  told = []

  def tell(value, mesh):
    told.append(value)
    return value

  def ticking():
    times = iter(range(0, 10000, 100))
    return types.SimpleNamespace(perf_counter=lambda: next(times))

  its, quick = candidates("lookup"), Machine(1.0)
  monkeypatch.setattr(apart, "_run", quick)
  monkeypatch.setattr(apart, "time", ticking())
  with mock.patch.object(hosts, "agreed", tell):
    zero = calibrate_apart(TEXT, its, REQUEST, texts=TEXTS, seconds=math.inf)
  # A process whose clock says something else, and which alone would have stopped earlier.
  slow, heard = Machine(3.0), iter(told)
  monkeypatch.setattr(apart, "_run", slow)
  monkeypatch.setattr(apart, "time", ticking())
  with mock.patch.object(hosts, "agreed", lambda value, mesh: next(heard)):
    one = calibrate_apart(TEXT, its, REQUEST, texts=TEXTS, seconds=1.0)
  assert slow.runs == quick.runs
  assert [its.latency for its in one] == [its.latency for its in zero]
  monkeypatch.setattr(apart, "time", ticking())
  alone = calibrate_apart(TEXT, its, REQUEST, texts=TEXTS, seconds=1.0)
  assert [its.latency for its in alone] != [its.latency for its in zero]


def test_a_plan_of_several_processes_has_a_program_of_its_own(monkeypatch, capsys):
  monkeypatch.setattr(apart, "_run", Machine())
  monkeypatch.setattr(hosts, "is_shared", lambda mesh: True)
  plan = dict(context=24, seconds=0.0, texts=TEXTS)
  config = decode_config("auto", of="all").to_dict() | dict(draft_model=DRAFT, plan=plan)
  found = find_plan(config, TEXT)
  lines = capsys.readouterr().err.splitlines()
  for name in ("trie", "suffix"):
    (line,) = [one for one in lines if one.startswith(f"mtjax: auto goes without {name}: ")]
    assert "keep a store of its own in each of" in line
  assert found.measured and not found.follows
  assert found.made() == found.made_alone(found.plan.choice)
  # Trees of every size are chosen from, as each has a program of its own.
  trees = [one for one in found.plan.ranking if one.drafter == "draft_tree"]
  assert {one.entries for one in trees} == {2, 3, 4}
  assert all(one.entries == one.topology.size for one in trees)
  assert len({one.topology for one in trees}) == len(trees)
  with mock.patch.object(auto, "calibrate_apart", side_effect=AssertionError("measured again")):
    assert find_plan(config, TEXT).plan == found.plan


def test_no_tree_is_larger_than_those_that_were_measured(monkeypatch):
  monkeypatch.setattr(registry, "shape_sizes", lambda _: registry._ACCELERATOR_SIZES)
  chain, tree = candidates("draft", "draft_tree")
  assert sizes_apart(chain) == list(range(2, 17))
  assert sizes_apart(tree) == [*range(2, 17), *range(20, 65, 4)]
  # Eighteen levels of one child hold no 64 nodes, nor a number of the grid.
  shaped = ShapedTree(SMALL, 64, 18, 1)
  arm = dataclasses.replace(tree.arm, method=Speculative(shaped), shaped=shaped)
  assert sizes_apart(dataclasses.replace(tree, arm=arm))[-2:] == [16, 19]


@pytest.mark.parametrize(
  ("names", "context", "message"),
  [
    ((), 24, "there is no drafter available to plan with"),
    (("lookup", "suffix"), 24, "suffix:size=8 would keep a store of its own in each of"),
    (("lookup",), 2, "texts of one token have no round to measure"),
  ],
)
def test_what_cannot_be_measured_is_refused(names, context, message):
  with pytest.raises(ValueError, match=message):
    calibrate_apart(TEXT, candidates(*names), PlanRequest(1, context), texts=TEXTS)
