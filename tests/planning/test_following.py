"""A plan that is followed while a program runs: the text changes, the program does not."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.decode.generation import generate
from mtjax.decode.planned import Arm, Planned
from mtjax.decode.speculative import Speculative
from mtjax.draft import ForAnyTarget
from mtjax.rounds import run as rounds
from mtjax.trees import chain
from mtjax.tuning import Siblings
from mtjax.tuning.online import Menu, ProfiledDrafter, Replanner
from mtjax.tuning.online.chooser import OnlineChooser, Report
from mtjax.tuning.profiles import AcceptanceCounts
from mtjax.types import Draft, DraftScheme
from tests.draft.drafters import PARAMS, TARGET
from tests.tuning.scenarios import acceptance, times

PLAIN, STEP = 2.5e-3, 0.5e-3
LATENCY = times({1: (PLAIN, {1: PLAIN, 8: 1.02 * PLAIN})}, STEP, steps=7)
PROFILE = acceptance({"code": 0.95, "prose": 0.02}, depth=7)
PROMPT, LONG, SWITCH = [1, 2, 3], 120, 60


@dataclasses.dataclass(frozen=True)
class Rehearsed(ForAnyTarget):
  """Drafts the text that params hold, and from token `switch` on other tokens."""

  height: int = 7
  breadth: int = 1
  scheme: DraftScheme = DraftScheme.DELTA
  switch: int = SWITCH

  def start(self, params, prompt, length, *, max_new):
    return ()

  def propose(self, params, state, context):
    place = context.step[:, None] + jnp.arange(self.height)
    token = jnp.take(params, jnp.clip(place, 0, params.shape[0] - 1))
    token = jnp.where(context.step[:, None] < self.switch, token, (token + 1) % 12)
    tree = chain(self.height).tree(jnp.concatenate([context.last[:, None], token], axis=1))
    return Draft(tree, DraftScheme.DELTA), state

  def update(self, state, round):
    return state


class Simulated(OnlineChooser):
  """A chooser whose rounds take the time of the profile, and nothing else does."""

  def __init__(self, *arguments):
    self.now = 0.0
    super().__init__(*arguments, clock=lambda: self.now)

  def choose(self, run, report):
    if report.rounds and run in self._runs:
      self.now += report.rounds * self._runs[run].state.choice.seconds
    return super().choose(run, report)


def test_a_switch_from_code_to_prose_is_answered_within_twenty_rounds_by_the_same_program():
  arm = Arm("rehearsed", Speculative(Rehearsed()), (2, 4, 8))
  method = Planned((arm,), 1)
  planner = Replanner([ProfiledDrafter("rehearsed", PROFILE, LATENCY, Siblings.ONE)])
  sets = [planner.competitors(1, name) for name in ("code", "prose")]
  planner = dataclasses.replace(planner, menu=Menu.of(sets, {"rehearsed": arm.sizes}))
  plain = generate(TARGET, PARAMS, [PROMPT], max_tokens=LONG)
  text = jnp.array(plain.tokens[0])

  def decode():
    chooser = Simulated(planner, method.branches)
    params = chooser.handle, (text,)
    settings = dict(method=method, method_params=params, max_tokens=LONG)
    return generate(TARGET, PARAMS, [PROMPT], **settings), chooser

  out, chooser = decode()
  assert out.tokens == plain.tokens
  names = [name for _, name in chooser.switches]
  assert names[0].startswith("rehearsed") and "rehearsed, chain of 7" in names
  assert names[-1] == "plain decoding" or names[-1] == "rehearsed, chain of 1"
  # Rounds of full drafts emit 8 tokens; the first token is the prefill's.
  last_full = max(
    rounds for (rounds, _), (_, before) in zip(chooser.switches[1:], chooser.switches, strict=False)
    if before == "rehearsed, chain of 7"
  )  # fmt: skip
  drafted, accepted = (np.array(out.counters[f"{x}_at_depth"]) for x in ("drafted", "accepted"))
  rounds_of_code = int(accepted[-1]) + 1
  assert last_full - rounds_of_code <= 20
  assert drafted[-1] < 40, "full drafts go on for few rounds of prose"
  compiled = rounds.whole._cache_size()
  again, other = decode()
  assert again.tokens == plain.tokens and len(other.switches) >= 2
  assert rounds.whole._cache_size() == compiled and again.counters["compile_seconds"] == 0.0


def seconds_of(choice):
  """Returns the seconds of a round of a choice by the profile, without what was learned."""
  curve = LATENCY.at(1)
  return float(curve.round_seconds(choice.entries, choice.steps)) if choice.drafter else curve.plain


def test_a_pause_of_the_caller_is_no_slow_round():
  planner = Replanner([ProfiledDrafter("d", PROFILE, LATENCY, Siblings.ONE)], sizes=(2, 4, 8))
  now = [0.0]
  chooser = OnlineChooser(
    planner, {("d", size): i for i, size in enumerate((2, 4, 8), 1)}, clock=lambda: now[0]
  )
  run = chooser.begin(1)
  order = chooser.choose(run, Report(0, 0, AcceptanceCounts.none(1, 1)))
  usual = chooser._runs[run].state.choice.seconds
  counts = AcceptanceCounts(np.full((7, 1), 4), np.full((7, 1), 4), 4)
  now[0] += usual
  order = chooser.choose(run, Report(order.branch, order.rounds, counts))
  now[0] += 60.0  # somebody reads what was streamed
  after = chooser.choose(run, Report(order.branch, 4, counts))
  assert after[:2] == order[:2] and chooser._runs[run].state.choice.seconds < 1.1 * usual
  # A machine that has become slow is believed from the third time on, of which the pause was one.
  known = chooser._runs[run].state.drift.factors
  for number in range(100):
    now[0] += order.rounds * 10 * seconds_of(chooser._runs[run].state.choice)
    order = chooser.choose(run, Report(order.branch, order.rounds, counts))
    assert number or chooser._runs[run].state.drift.factors == known
  for sizes in chooser._runs[run].state.drift.factors.values():
    logs = [one.log for one in sizes.values() if one.rounds >= 20]
    assert logs == pytest.approx([math.log(10)] * len(logs), abs=0.2)
  assert any(one.rounds >= 20 for one in chooser._drift.factors["d", 1].values())


def test_the_prompts_pass_and_what_a_drafter_missed_are_no_time_of_rounds():
  now = [0.0]
  planner = Replanner([ProfiledDrafter("d", PROFILE, LATENCY, Siblings.ONE)], sizes=(2, 4, 8))
  branches = {("d", size): i for i, size in enumerate((2, 4, 8), 1)}
  chooser = OnlineChooser(planner, branches, clock=lambda: now[0])
  none, used = AcceptanceCounts.none(1, 1), []
  for _ in range(3):
    run, branch, rounds, counts, first = chooser.begin(1), 0, 0, none, 10 * PLAIN
    for _ in range(60):
      order = chooser.choose(run, Report(branch, rounds, counts))
      choice = chooser._runs[run].state.choice
      # Another branch than before, or the first round: a prompt is read, in the time of ten rounds.
      changed = rounds == 0 or order.branch != branch
      now[0] += order.rounds * seconds_of(choice) + (first if changed else 0.0)
      used.append(order.branch)
      branch, rounds = order.branch, order.rounds
      counts = none
      if branch:  # nothing is accepted: plain decoding pays, and is probed
        counts = AcceptanceCounts(np.full((1, 1), rounds), np.zeros((1, 1), int), rounds)
  assert len(set(used)) > 1
  for sizes in chooser._drift.factors.values():
    assert all(one.log == pytest.approx(0.0, abs=1e-6) for one in sizes.values())


def test_a_run_begins_with_what_is_faster_than_plain_decoding_in_a_program_of_its_own():
  def planner(**settings):
    curves = tuple(dataclasses.replace(one, **settings) for one in LATENCY.curves)
    latency = dataclasses.replace(LATENCY, curves=curves)
    drafter = ProfiledDrafter("d", profile, latency, Siblings.ONE)
    return Replanner([drafter], sizes=(2, 4, 8), new_tokens=64)

  profile = acceptance({"code": 0.95, "prose": 0.3}, depth=7)

  found = planner().start_plan(1)
  best, plain = found.choice, found.plain
  assert best.drafter == "d" and plain.seconds == PLAIN
  assert planner().start(1).choice.topology == best.topology
  # In programs of their own all rounds save the same time. Where the best is then 6 % ahead of
  # plain decoding it is chosen, and where it is 3 % ahead it is not.
  more, tokens = best.seconds - PLAIN, best.expected_tokens
  for share, drafter in ((1.06, "d"), (1.03, None)):
    alone = share * more / (tokens - share)
    found = planner(alone=alone).start_plan(1)
    assert found.choice.drafter == drafter and found.plain.seconds == alone
    assert planner(alone=alone).start(1).choice.drafter == drafter
  # The draft model reads the prompt for as long as all of the gain would be.
  gain = 64 * (PLAIN - 1 / best.tokens_per_second)
  assert planner(start=0.1 * gain).start_plan(1).choice.drafter == "d"
  assert planner(start=gain).start_plan(1).choice.drafter is None
  # Nothing but the first round is compared so: times of rounds are those of the program.
  assert planner(start=0.1 * gain).start(1).choice.seconds == best.seconds
  assert found.runner_up is not None and found.runner_up.drafter == "d"
