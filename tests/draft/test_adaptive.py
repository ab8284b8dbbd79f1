"""Rounds as large as pay: the same text, sizes by cost and survival, plain rounds where none do."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.decode import costs
from mtjax.decode.adaptive import Adaptive, AdaptiveParams
from mtjax.decode.costs import measure_costs
from mtjax.decode.generation import Generation, generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import ModelChain, PromptLookup, RatedTrie, SuffixStore
from mtjax.sampling.logits import Sampling
from mtjax.trees import chain
from mtjax.types import Draft, DraftScheme
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, SMALL, SMALL_PARAMS, TARGET

WARM = Sampling(temperature=(0.0, 1.0, 0.5), repetition_penalty=1.3)
LOOKUP = Adaptive(Speculative(PromptLookup(length=7)))  # rounds of 1, 4, 6 and 8 entries
MODEL = Adaptive(Speculative(ModelChain(TARGET, 2)))


def run(method, params, **settings):
  given = dict(method=method, method_params=params, max_tokens=LIMITS) | settings
  return generate(TARGET, PARAMS, PROMPTS, **given)


SUFFIX = SuffixStore(12)


@pytest.fixture(scope="module")
def plain():
  return generate(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, sampling=WARM, key=3)


@pytest.mark.parametrize(
  ("drafter", "params", "cost"),
  [
    (PromptLookup(length=3, branches=2), None, (1.0, 1.2, 1.3, 2.0)),
    (RatedTrie(size=6), SUFFIX.handle, (1.0, 1.1, 1.2, 1.4)),
    (ModelChain(SMALL, 3), SMALL_PARAMS, 1.5),
  ],
  ids=["lookup", "suffix", "model"],
)
def test_text_is_that_of_plain_decoding_whatever_is_chosen(plain, drafter, params, cost):
  # At this cost some rounds pay and some do not: the draft model misses rounds and catches up.
  method = Adaptive(Speculative(drafter), patience=5, hope=1.0)
  out = run(method, method.params(cost, params), sampling=WARM, key=3)
  assert out.tokens == plain.tokens
  drafted, rounds = out.counters["drafted_at_depth"][0], out.counters["target_forwards"] - 3
  assert 0 < drafted < rounds


@pytest.mark.parametrize("size", [1, 4, 6, 8])
def test_a_round_has_the_size_that_pays(size):
  """Every token has come before, so that there are 7 drafts in each round but the last ones."""
  method = dataclasses.replace(LOOKUP, hope=1e6)  # however few drafts are accepted
  params = method.params([1e-3 if one == size else 9 for one in (1, 4, 6, 8)])
  prompt, given = [[*range(12), *range(12)]], dict(method=method, method_params=params)
  out = generate(TARGET, PARAMS, prompt, max_tokens=20, **given)
  assert out.tokens == generate(TARGET, PARAMS, prompt, max_tokens=20).tokens
  assert [count > 0 for count in out.counters["drafted_at_depth"]] == [
    n < size for n in range(1, 8)
  ]


def draft_of(valid, survival):
  tree = chain(7).tree(jnp.zeros((len(valid), 8), jnp.int32))
  there = jnp.arange(8) <= jnp.array(valid)[:, None]
  survival = None if survival is None else jnp.array(survival)
  return Draft(tree.replace(valid=there), DraftScheme.DELTA, survival=survival)


def chosen(method, draft, cost, active=None, remaining=99):
  active = jnp.ones(len(draft.tree.valid), bool) if active is None else jnp.array(active)
  left = jnp.full(active.shape, remaining)
  size, cost = method._chosen(draft, active, left, method.params(cost).costs)
  return int(size), round(float(cost), 3)


def test_the_size_has_the_largest_expected_speed():
  sure, unsure = [0.9**n for n in range(8)], [0.5**n for n in range(8)]
  cost = (1.0, 1.3, 1.7, 2.2)
  # Sure: 3.439 / 1.3 = 2.65, 4.686 / 1.7 = 2.76, 5.695 / 2.2 = 2.59. Unsure: 1.875 / 1.3 = 1.44,
  # 1.969 / 1.7 = 1.16, 1.992 / 2.2 = 0.91.
  assert chosen(LOOKUP, draft_of([7], [sure]), cost) == (6, 1.7)
  assert chosen(LOOKUP, draft_of([7], [unsure]), cost) == (4, 1.3)
  assert chosen(LOOKUP, draft_of([7], [[1, *[0.1] * 7]]), cost) == (1, 1.0)
  # What is not there, or cannot be emitted, does not count: 1.9 / 1.3 is the best of one draft.
  assert chosen(LOOKUP, draft_of([1], [sure]), cost) == (4, 1.3)
  assert chosen(LOOKUP, draft_of([7], [sure]), cost, remaining=2) == (4, 1.3)
  assert chosen(LOOKUP, draft_of([0], [sure]), cost) == (1, 1.0)
  # The mean of active rows counts: 4.739 / 2 / 1.3 = 1.823, 6.186 / 2 / 1.7 = 1.819.
  both = draft_of([7, 7], [sure, [1, *[0.1] * 7]])
  assert chosen(LOOKUP, both, cost) == (4, 1.3)
  assert chosen(LOOKUP, both, cost, [True, False]) == (6, 1.7)
  assert chosen(LOOKUP, both, cost, [False, True]) == (1, 1.0)


def test_drafts_that_may_be_sampled_are_verified_whole_however_many_there_are():
  """Their number depends on what was sampled: a cut that follows it would change the distribution.

  A draft that says how probable its nodes are is cut, so the sizes of both can be compared.
  """
  counts = [chosen(MODEL, draft_of([n], None), 30.0)[0] for n in range(8)]
  assert counts == [1] + [8] * 7
  rated = [chosen(LOOKUP, draft_of([n], [[1.0] * 8]), (1.0, 2.5, 2.8, 3.0))[0] for n in range(8)]
  assert rated == [1, 1, 4, 4, 6, 6, 8, 8]


def test_a_drafter_that_samples_may_not_estimate():
  class Both(ModelChain):
    estimates_survival = True

  with pytest.raises(ValueError, match="Both samples its drafts and estimates their survival"):
    Adaptive(Speculative(Both(TARGET, 2)))


def test_where_drafts_never_pay_each_pause_is_twice_as_long_up_to_four_times():
  method = dataclasses.replace(MODEL, patience=3)
  given = dict(method=method, method_params=method.params(100.0, PARAMS))
  out = generate(TARGET, PARAMS, [[1, 2]], max_tokens=60, **given)
  # Drafts of the target itself are all accepted: a try emits 3 tokens, a round between them one.
  # The mean begins above what is enough, so that the first two rounds draft. After the first token,
  # from the prefill: 3, 3 + 2, 3 + 5, 3 + 11, 3 + 11, 3 + 11, and a try for the one that is left.
  assert out.counters["drafted_at_depth"] == [7, 6]
  assert out.counters["draft_forwards"] == 7 * 2


def test_pauses_are_short_again_once_drafts_pay():
  method = dataclasses.replace(LOOKUP, patience=5)
  assert method.next_try(0, 20, drafted=True, pays=True) == (19, 5)
  assert method.next_try(0, 5, drafted=True, pays=False) == (4, 10)
  assert method.next_try(0, 20, drafted=True, pays=False) == (19, 20)
  assert method.next_try(3, 10, drafted=False, pays=False) == (2, 10)


def test_where_drafts_always_pay_every_round_drafts():
  runs = [
    generate(TARGET, PARAMS, [[1, 2]], max_tokens=60, method=method, method_params=params)
    for method, params in ((MODEL.speculative, PARAMS), (MODEL, MODEL.params(1.0, PARAMS)))
  ]
  assert runs[0].counters["accepted_at_depth"] == runs[1].counters["accepted_at_depth"]


def test_rounds_without_a_draft_are_small():
  """No token comes twice in this prompt or its greedy continuation's first tokens."""
  given = dict(method=LOOKUP, method_params=LOOKUP.params(1.0))
  out = generate(TARGET, PARAMS, [[1, 2, 3]], max_tokens=2, **given)
  assert out.counters["drafted_at_depth"] == [0] * 7
  assert out.counters["entries"] == 3 + 1


def test_infinite_costs_draft_nothing():
  method = dataclasses.replace(MODEL, hope=10.0)
  given = dict(method=method, method_params=AdaptiveParams(jnp.array([jnp.inf]), PARAMS))
  out = generate(TARGET, PARAMS, [[1, 2]], max_tokens=9, **given)
  assert out.counters["draft_forwards"] == 0


def fake_generate(seconds_of, asked, prefill=lambda run: 7.0):
  """A `generate` of rounds that take seconds_of(chosen size; None: no drafts)."""

  def generate(model, params, prompts, *, method, method_params, max_tokens, mesh=None):
    given = method_params.costs.tolist()
    size = given.index(min(given)) if min(given) < math.inf else None
    rounds = (max_tokens - 1) // (1 if size is None else size + 1)
    asked.append((size, max_tokens))
    seconds = prefill(len(asked)) + rounds * seconds_of(size)
    return Generation([], [], dict(seconds=seconds, target_forwards=1 + rounds), [])

  return generate


def test_measured_costs_are_those_of_rounds(monkeypatch):
  """Rounds of 2 s without drafts after a prefill of 7 s, and two runs that compile."""
  asked = []
  fake = fake_generate({None: 2.0, 0: 2.2, 1: 3.0, 2: 3.5, 3: 5.0}.get, asked)
  monkeypatch.setattr(costs, "generate", fake)
  found = measure_costs(TARGET, PARAMS, LOOKUP, None, prompt=[1], tokens=13)
  assert found == pytest.approx((1.1, 1.5, 1.75, 2.5))
  turn = [(None, 1), (None, 13), (0, 13), (1, 13), (2, 13), (3, 13)]
  assert asked == [(None, 1), (None, 13), *turn, *turn]


def test_costs_are_measured_in_turns_so_that_other_work_slows_all(monkeypatch):
  """A machine that is three times slower in the second turn, but for a prefill that is slower."""
  asked = []
  fake = fake_generate(
    lambda size: (3 if len(asked) > 5 else 1) * (1.0 if size is None else 2.0),
    asked,
    lambda run: 40.0 if run == 3 else 7.0,
  )
  monkeypatch.setattr(costs, "generate", fake)
  assert measure_costs(TARGET, PARAMS, MODEL, None, prompt=[1], tokens=13) == pytest.approx((2.0,))
  assert len(asked) == 2 + 2 * 3, "two that compile, and two turns of three that take long enough"


def test_short_runs_are_repeated_and_long_ones_are_not(monkeypatch):
  """A turn of three runs with 23 rounds each: of 0.13 s, or of 0.27 s."""
  for round_seconds, turns in ((0.002, 3), (0.006, 2)):
    asked = []
    fake = fake_generate(lambda size, one=round_seconds: one, asked, lambda run: 0.0)
    monkeypatch.setattr(costs, "generate", fake)
    measure_costs(TARGET, PARAMS, MODEL, None, prompt=[1], tokens=24)
    assert len(asked) == 2 + 3 * turns


def test_all_processes_have_the_costs_of_the_first_ones_clock(monkeypatch):
  """Process 0 needs three turns, and the clock of another one would have stopped after two."""
  told, runs, found = [], [], []

  def tell(value, mesh):
    told.append(value)
    return value

  for round_seconds, agreed in ((0.002, tell), (0.006, lambda value, mesh: told.pop(0))):
    asked = []
    fake = fake_generate(
      lambda size, one=round_seconds: one + 0.001 * (size == 0), asked, lambda run: 0.0
    )
    monkeypatch.setattr(costs, "generate", fake)
    monkeypatch.setattr(costs.hosts, "agreed", agreed)
    found.append(measure_costs(TARGET, PARAMS, MODEL, None, prompt=[1], tokens=24))
    runs.append(len(asked))
  assert found[0] == found[1] == pytest.approx((1.5,)) and runs[0] == runs[1] and not told


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(patience=0), "patience must be at least 1"),
    (dict(memory=1.5), "memory must be above 0 and at most 1, got 1.5"),
    (dict(hope=0.0), "hope must be above 0, got 0.0"),
  ],
)
def test_settings_out_of_range(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(LOOKUP, **change)


@pytest.mark.parametrize(
  ("cost", "message"),
  [
    (0.0, "cost must be above 0, got 0.0"),
    (float("nan"), "cost must be above 0"),
    ((1.0, 1.0, -1.0, 1.0), "cost must be above 0"),
    ((1.0, 1.2), "one for each of the 4 sizes of a round"),
    (np.array([[1.0, 1.2]]), "one for each of the 4 sizes of a round"),
  ],
)
def test_costs_out_of_range(cost, message):
  with pytest.raises(ValueError, match=message):
    LOOKUP.params(cost)


def test_parameters_of_the_drafter_alone_are_refused():
  with pytest.raises(ValueError, match=r"give method_params=method.params\(cost, "):
    generate(TARGET, PARAMS, [[1, 2]], max_tokens=4, method=MODEL, method_params=PARAMS)
