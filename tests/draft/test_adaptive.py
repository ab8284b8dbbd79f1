"""Plain rounds where drafts do not pay: the same text, and the rounds that were to be plain are."""

import dataclasses

import pytest

from mtjax.decode import adaptive
from mtjax.decode.adaptive import Adaptive, measure_cost
from mtjax.decode.generation import Generation, generate
from mtjax.decode.method import Autoregressive
from mtjax.decode.speculative import Speculative
from mtjax.draft import ModelChain, PromptLookup
from mtjax.sampling.logits import Sampling
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, SMALL, SMALL_PARAMS, TARGET

WARM = Sampling(temperature=(0.0, 1.0, 0.5), repetition_penalty=1.3)


def run(method, params=None, **settings):
  given = dict(method=method, method_params=params, max_tokens=LIMITS) | settings
  return generate(TARGET, PARAMS, PROMPTS, **given)


@pytest.fixture(scope="module")
def plain():
  return generate(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, sampling=WARM, key=3)


@pytest.mark.parametrize(
  ("drafter", "params"),
  [(PromptLookup(length=3, branches=2), None), (ModelChain(SMALL, 3), SMALL_PARAMS)],
  ids=["lookup", "model"],
)
def test_text_is_that_of_plain_decoding_whatever_is_chosen(plain, drafter, params):
  # At this cost some rounds pay and some do not: the draft model misses rounds and catches up.
  method = Adaptive(Speculative(drafter), cost=1.5, patience=5, hope=1.0)
  out = run(method, params, sampling=WARM, key=3)
  assert out.tokens == plain.tokens
  drafted, rounds = out.counters["drafted_at_depth"][0], out.counters["target_forwards"] - 3
  assert 0 < drafted < rounds


def test_where_drafts_never_pay_each_pause_is_twice_as_long_up_to_four_times():
  method = Adaptive(Speculative(ModelChain(TARGET, 2)), cost=100.0, patience=3)
  out = generate(TARGET, PARAMS, [[1, 2]], max_tokens=60, method=method, method_params=PARAMS)
  # Drafts of the target itself are all accepted: a try emits 3 tokens, a round between them one.
  # After the first token, from the prefill: 3 + 2, 3 + 5, 3 + 11, 3 + 11, 3 + 11, 3, 1 left.
  assert out.counters["drafted_at_depth"] == [6, 6]
  assert out.counters["draft_forwards"] == 6 * 2


def test_pauses_are_short_again_once_drafts_pay():
  method = Adaptive(Speculative(PromptLookup()), cost=1.5, patience=5)
  assert method.next_try(0, 20, drafted=True, pays=True) == (19, 5)
  assert method.next_try(0, 5, drafted=True, pays=False) == (4, 10)
  assert method.next_try(0, 20, drafted=True, pays=False) == (19, 20)
  assert method.next_try(3, 10, drafted=False, pays=False) == (2, 10)


def test_where_drafts_always_pay_every_round_drafts():
  spec = Speculative(ModelChain(TARGET, 2))
  runs = [
    generate(TARGET, PARAMS, [[1, 2]], max_tokens=60, method=method, method_params=PARAMS)
    for method in (spec, Adaptive(spec, cost=1.0))
  ]
  assert runs[0].counters["accepted_at_depth"] == runs[1].counters["accepted_at_depth"]


def test_rounds_without_a_draft_are_small():
  """No token comes twice in this prompt or its greedy continuation's first tokens."""
  method = Adaptive(Speculative(PromptLookup(length=5)), cost=1.0)
  out = generate(TARGET, PARAMS, [[1, 2, 3]], max_tokens=2, method=method)
  assert out.counters["drafted_at_depth"] == [0] * 5
  assert out.counters["entries"] == 3 + 1


def test_measured_cost_is_that_of_a_round(monkeypatch):
  """11 tokens: 10 plain rounds of 1 s, or 5 speculative ones of 3 s, after a prefill of 7 s."""

  def generate(model, params, prompts, *, method, method_params, max_tokens, mesh=None):
    plain = isinstance(method, Autoregressive)
    rounds = (max_tokens - 1) // (1 if plain else 2)
    seconds = 7 + rounds * (1 if plain else 3)
    return Generation([], [], dict(seconds=seconds, target_forwards=1 + rounds), [])

  monkeypatch.setattr(adaptive, "generate", generate)
  spec = Speculative(PromptLookup(length=3))
  assert measure_cost(TARGET, PARAMS, spec, None, prompt=[1], tokens=11) == pytest.approx(3)


def test_a_cost_is_measured_in_turns_so_that_other_work_slows_both(monkeypatch):
  """A machine that is three times slower from the fifth timed run on, and a cost of 2."""
  runs = []

  def generate(model, params, prompts, *, method, method_params, max_tokens, mesh=None):
    plain, rounds = isinstance(method, Autoregressive), max_tokens - 1
    runs.append(plain)
    slow = 3 if len(runs) > 8 else 1
    seconds = slow * (1 + rounds * (1 if plain else 2))
    return Generation([], [], dict(seconds=seconds, target_forwards=1 + rounds), [])

  monkeypatch.setattr(adaptive, "generate", generate)
  spec = Speculative(PromptLookup(length=3))
  assert measure_cost(TARGET, PARAMS, spec, None, prompt=[1], tokens=11) == pytest.approx(2)
  assert len(runs) == 12, "four that compile, and two rounds of four that take long enough"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(cost=0.0), "cost must be above 0, got 0.0"),
    (dict(cost=float("nan")), "cost must be above 0"),
    (dict(patience=0), "patience must be at least 1"),
    (dict(memory=1.5), "memory must be above 0 and at most 1, got 1.5"),
  ],
)
def test_settings_out_of_range(change, message):
  method = Adaptive(Speculative(PromptLookup()), cost=1.5)
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(method, **change)
