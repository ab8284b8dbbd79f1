"""Evidence from plain rounds: what a drafter would have drafted right in their text."""

import dataclasses

import numpy as np
import pytest

from mtjax.tuning import Siblings
from mtjax.tuning.online import ProfiledDrafter, Replanner
from mtjax.tuning.online.chooser import PLAIN, OnlineChooser, Report
from mtjax.tuning.online.watching import Watched, watched_rounds
from mtjax.tuning.profiles import AcceptanceCounts
from tests.tuning.recorded import LONGEST, counted, texts
from tests.tuning.scenarios import acceptance, times

PLAIN_SECONDS = 2.5e-3
LATENCY = times({1: (PLAIN_SECONDS, {1: PLAIN_SECONDS, 8: 1.2 * PLAIN_SECONDS})}, 1e-5, steps=7)
DOMAINS = {"code": 0.95, "prose": 0.02}


def planner(**settings):
  drafter = ProfiledDrafter("d", acceptance(DOMAINS, depth=7), LATENCY, Siblings.ONE)
  return Replanner([drafter], sizes=(2, 4, 8), **settings)


def known(text, length):
  """Returns the right drafts behind each place of the first `length` tokens, as far as known."""
  return [0, *(min(text[place - 1], length - place) for place in range(1, length))]


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_watched_rounds_are_those_of_decoding_with_the_chain(chunk):
  every = [text for domain in texts("test").values() for text in domain][:6]
  for first, second in zip(every[::2], every[1::2], strict=True):
    ends, total = [1, 1], AcceptanceCounts.none(LONGEST, 1)
    last = max(map(len, (first, second)))
    for length in [*range(1, last, chunk), last]:
      lengths = [min(length, len(text)) for text in (first, second)]
      rows = [known(text, it) for text, it in zip((first, second), lengths, strict=True)]
      counts, ends = watched_rounds(Watched(rows, lengths, ends, LONGEST))
      total = total + counts
    expected = counted(first, LONGEST) + counted(second, LONGEST)
    total = total + watched_rounds(Watched(rows, lengths, ends, LONGEST), ended=True)[0]
    np.testing.assert_array_equal(total.tried, expected.tried)
    np.testing.assert_array_equal(total.accepted, expected.accepted)
    assert total.rounds == expected.rounds > 10


def plain_rounds(watched, rounds):
  """Returns the state after so many plain rounds of a text of code, seven drafts right each."""
  fresh = planner(watched=watched)
  state = fresh.start(1)
  # As after a long text of prose.
  prose = AcceptanceCounts(np.full((7, 1), [[20]] + [[0]] * 6), np.zeros((7, 1), int), 20)
  state = dataclasses.replace(
    state,
    choice=fresh.start_plan(1).plain,
    estimate=state.estimate.observe("d", prose, hazard=0.005, forget=0.05, weight=10.0),
  )
  code = AcceptanceCounts(np.ones((7, 1), int), np.ones((7, 1), int), 1)
  for number in range(rounds):
    counts = code if number % 8 == 0 else None
    state = fresh.observe(state, seconds=PLAIN_SECONDS, counts=counts if watched else None)
  return state


def test_a_text_that_could_be_drafted_is_seen_in_plain_rounds_without_a_probe():
  seen, unseen = plain_rounds("d", 12), plain_rounds(None, 12)
  assert seen.choice.drafter == "d" and not seen.probing
  assert unseen.choice.drafter is None
  # Tokens of plain rounds are one each, whatever was watched.
  assert plain_rounds("d", 8).emitted == 8.0


def test_a_chooser_watches_where_drafts_would_pay_and_counts_each_round_once():
  fresh = planner(watched="d")
  now = [0.0]
  chooser = OnlineChooser(
    fresh, {("d", size): i for i, size in enumerate((2, 4, 8), 1)}, clock=lambda: now[0]
  )
  run, told = chooser.begin(1), []
  own = fresh.__class__.observe

  def observe(self, state, *, counts, **settings):
    told.append(counts)
    return dataclasses.replace(own(self, state, counts=None, **settings), choice=plain)

  plain = fresh.start_plan(1).plain
  nothing = AcceptanceCounts.none(7, 1)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fresh.__class__, "observe", observe)
    chooser._runs[run].state = dataclasses.replace(chooser._runs[run].state, choice=plain)
    order = chooser.choose(run, Report(PLAIN, 0, nothing))
    assert order.branch == PLAIN and order.watch
    text, length = [2, 1, 0, 0, 7, 6, 5, 4, 3, 2, 1, 0, 0], 1
    for rounds in (4, 1, 4, 3):
      length, now[0] = length + rounds, now[0] + rounds * PLAIN_SECONDS
      watched = Watched(
        [known(text, length), [0] * length], [length, 9], [length - rounds, 9], 7
      )  # the second row has ended
      order = chooser.choose(run, Report(PLAIN, rounds, nothing, watched))
    # Rounds with drafts say it themselves; what is watched then begins anew.
    chooser.choose(run, Report(1, 1, AcceptanceCounts(np.array([[1]]), np.array([[0]]), 1)))
    again = Watched([known(text, 5)], [5], [4], 7)
    chooser.choose(run, Report(PLAIN, 1, nothing, again))
  # Behind token 1 two drafts are right, behind 4 none, and behind 5 all seven.
  assert [counts.rounds for counts in told] == [2, 0, 0, 1, 1, 1]
  np.testing.assert_array_equal(told[0].accepted[:, 0], [1, 1, 0, 0, 0, 0, 0])
  np.testing.assert_array_equal(told[3].accepted[:, 0], [1] * 7)
  never = planner(watched="d")
  assert never.watches(1)
  slow = dataclasses.replace(LATENCY.at(1), plain=PLAIN_SECONDS / 20)
  latency = dataclasses.replace(LATENCY, curves=(slow,))
  (drafter,) = never.drafters
  never = dataclasses.replace(never, drafters=[dataclasses.replace(drafter, latency=latency)])
  assert not never.watches(1), "no domain would be drafted"
  assert not planner().watches(1)


def test_a_watched_drafter_is_not_probed():
  def probes(watched):
    fresh = planner(watched=watched)
    state, seen = plain_rounds(watched, 0), 0
    prose = AcceptanceCounts(np.array([[1]] + [[0]] * 6), np.zeros((7, 1), int), 1)
    for _ in range(100):
      seen += state.probing > 0
      counts = prose if watched or state.choice.drafter else None
      state = fresh.observe(state, seconds=state.choice.seconds, counts=counts)
    return seen

  assert probes(None) > 0 and probes("d") == 0


def test_where_plain_decoding_is_first_a_watched_text_can_still_be_followed():
  domains = {"code": 0.95, "prose": 0.02, "verse": 0.0, "list": 0.0, "maths": 0.0}
  latency = times({1: (PLAIN_SECONDS, {1: PLAIN_SECONDS, 8: 2.0 * PLAIN_SECONDS})}, 1e-5, steps=7)
  drafter = ProfiledDrafter("d", acceptance(domains, depth=7), latency, Siblings.ONE)
  unwatched = Replanner([drafter], sizes=(8,))
  watched = dataclasses.replace(unwatched, watched="d")
  assert watched.start_plan(1).choice.drafter is None
  assert unwatched.gain_of_following(1) == 0.0
  assert watched.gain_of_following(1) > 0.05


def test_what_is_watched_must_be_a_drafter():
  with pytest.raises(ValueError, match="'other' cannot be watched: the drafters are d"):
    planner(watched="other")
