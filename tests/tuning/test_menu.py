"""A menu of rounds: the plan among a few, and loads that are replayed with it."""

import dataclasses

import numpy as np
import pytest

from mtjax.tuning import Competitor, RoundKind, Siblings, plan
from mtjax.tuning.online import Menu, ProfiledDrafter, Replanner
from mtjax.tuning.plan import expected_of
from tests.tuning.published import PPD_7B
from tests.tuning.scenarios import Load, acceptance, replay, times

PLAIN, STEP = 2.54e-3, 0.6e-3
LATENCY = times({1: (PLAIN, {1: PLAIN, 9: 1.02 * PLAIN})}, STEP)
DOMAINS = {"code": 0.95, "prose": 0.35}
RATES = {name: [rate] * 8 for name, rate in DOMAINS.items()}


def ranked(rates):
  curve = times({1: (PLAIN, {1: PLAIN, 24: 1.5 * PLAIN})}, STEP).at(1)
  return Competitor("d", np.asarray(rates, float), curve, Siblings.IN_ORDER)


def test_it_finds_what_the_planner_finds_and_expects_the_same():
  competitor = ranked(PPD_7B)
  menu = Menu.of([[competitor]], {"d": (4, 8, 16)})
  found, best = menu.plan([competitor]), plan([competitor], sizes=(4, 8, 16))
  assert found.choice.topology == best.choice.topology
  assert found.choice.tokens_per_second == pytest.approx(best.choice.tokens_per_second)
  assert found.plain == best.plain
  for one in found.ranking:
    if one.kind is not RoundKind.PLAIN:
      again = expected_of(competitor, one)
      assert one.expected_tokens == pytest.approx(again.expected_tokens)
      assert one.seconds == pytest.approx(again.seconds)
  assert menu.fastest([competitor], {}) == found.choice
  # A drafter that must read the text first loses to plain decoding.
  assert menu.fastest([competitor], {"d": found.plain.seconds}) == found.plain
  # The control: at other rates the same trees are worth something else.
  other = menu.plan([dataclasses.replace(competitor, rates=competitor.rates / 2)])
  assert other.choice.expected_tokens < 0.9 * found.choice.expected_tokens


def test_a_drafter_that_chooses_its_drafts_has_one_round_per_size():
  competitor = Competitor("d", np.full((6, 1), 0.5), LATENCY.at(1), Siblings.ONE)
  menu = Menu.of([[competitor]], {"d": (4, 8)}, whole=["d"])
  assert [one.entries for one in menu.rounds] == [4, 8]
  assert [one.topology.height for one in menu.rounds] == [3, 6]


@pytest.mark.parametrize("together", [1, 4], ids=["round by round", "four at a time"])
def test_a_switch_of_domain_is_answered_within_twenty_rounds(together):
  profile = acceptance(DOMAINS)
  fresh = Replanner([ProfiledDrafter("d", profile, LATENCY, Siblings.ONE)])
  sets = [fresh.competitors(1, name) for name in DOMAINS]
  fresh = dataclasses.replace(fresh, menu=Menu.of(sets, {"d": (2, 4, 9)}))
  run = replay(
    fresh, RATES, LATENCY, [Load(60, 1, "code"), Load(60, 1, "prose")], together=together
  )
  assert int(run.choices[59]) >= 6
  assert all(choice == "plain" or int(choice) <= 2 for choice in run.choices[80:])
  assert run.regret < 0.06


def test_a_menu_of_nothing_is_refused():
  with pytest.raises(ValueError, match="a menu has one or more rounds with drafts"):
    Menu(())
