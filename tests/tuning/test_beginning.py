"""What a run begins with: whole runs of a batch, and what following the text could gain."""

import dataclasses

import numpy as np
import pytest

from mtjax.trees import chain, k_ary
from mtjax.tuning import Siblings
from mtjax.tuning.online import FirstPlanner, ProfiledDrafter
from mtjax.tuning.plan import expected_of
from mtjax.tuning.plan_file import load_plan, save_plan
from mtjax.tuning.whole_runs import SPREAD, WholeRuns, _normal, measured_spread, shifted
from tests.tuning.scenarios import acceptance, times

PLAIN = 2e-3
LATENCY = times({1: (PLAIN, {1: PLAIN, 4: PLAIN}), 8: (PLAIN, {1: PLAIN, 4: PLAIN})}, 1e-4, steps=3)


def rounds_of_one_row(lengths, tokens):
  """Returns P(a row of `tokens` tokens has ended after n rounds), n = 0, 1, ..., by enumeration."""
  left = np.zeros(tokens + 1)
  left[tokens], ended = 1.0, [0.0]
  while left[1:].sum() > 1e-12:
    after = np.zeros_like(left)
    after[0] = left[0]
    for count, chance in lengths.items():
      for state in range(1, tokens + 1):
        after[max(state - count, 0)] += chance * left[state]
    left = after
    ended.append(left[0])
  return np.array(ended)


@pytest.mark.parametrize(
  ("topology", "rates", "lengths"),
  [
    (chain(2), [[0.7], [0.5]], {1: 0.3, 2: 0.35, 3: 0.35}),
    (k_ary((2,)), [[0.5, 0.2]], {1: 0.3, 2: 0.7}),
    (chain(0), [[0.5]], {1: 1.0}),
  ],
)
def test_the_rounds_of_a_batch_are_those_of_its_slowest_row(topology, rates, lengths):
  means = []
  for batch in (1, 8):
    ended = rounds_of_one_row(lengths, 30) ** batch
    means.append(float(np.sum(1 - ended)))
    found = WholeRuns(batch, 30, spread=0).rounds(topology, [np.array(rates)])
    assert found == pytest.approx(means[-1], rel=0.02)
  # The control: the rounds of a row alone are not those of a batch.
  assert (means[1] > 1.05 * means[0]) == (topology.size > 1)


def test_rows_are_of_all_domains_in_turn():
  all_accepted, none = np.ones((3, 1)), np.zeros((3, 1))
  runs = WholeRuns(1, 32)
  assert runs.rounds(chain(3), [all_accepted]) == pytest.approx(8)
  assert runs.rounds(chain(3), [none]) == pytest.approx(32)
  assert runs.rounds(chain(3), [all_accepted, none]) == pytest.approx(20, abs=0.1)
  assert WholeRuns(2, 32).rounds(chain(3), [all_accepted, none]) == pytest.approx(32)
  again = WholeRuns(2, 32).rounds(chain(3), [np.full((3, 1), 0.5)])
  assert again == WholeRuns(2, 32).rounds(chain(3), [np.full((3, 1), 0.5)])
  with pytest.raises(ValueError, match="at least 1: 0, 32"):
    WholeRuns(0, 32)
  with pytest.raises(ValueError, match="add up to at most 1"):
    WholeRuns(1, 32).rounds(chain(1), [np.array([[0.9, 0.9]])])
  with pytest.raises(ValueError, match="is a variance, got -0.1"):
    WholeRuns(1, 32, spread=-0.1)


def test_a_batch_waits_longer_where_its_texts_differ():
  rates, topology = np.array([[0.8], [0.6]]), chain(2)
  for batch in (1, 8):
    runs = WholeRuns(batch, 30, spread=0.5)
    # By enumeration: each row is as probably of one kind of text as of any other. The mean of the
    # log-odds is that with which texts take as many rounds per token as all rates together say.
    kinds = min(
      (shifted(rates, mean + np.sqrt(0.5) * _normal(9)) for mean in np.linspace(-0.5, 0.5, 201)),
      key=lambda kinds: abs(
        np.mean([1 / (1 + a + a * b) for (a,), (b,) in kinds]) - 1 / (1 + 0.8 + 0.8 * 0.6)
      ),
    )
    ended = [rounds_of_one_row({1: 1 - a, 2: a * (1 - b), 3: a * b}, 30) for (a,), (b,) in kinds]
    longest = max(map(len, ended))
    padded = [np.pad(one, (0, longest - len(one)), constant_values=1.0) for one in ended]
    expected = float(np.sum(1 - np.mean(padded, axis=0) ** batch))
    assert runs.rounds(topology, [rates]) == pytest.approx(expected, rel=0.02)
    # A text takes as many rounds on average, whether texts differ or not; a batch takes more.
    alike = WholeRuns(batch, 30, spread=0).rounds(topology, [rates])
    assert expected == pytest.approx(alike, rel=0.02) if batch == 1 else expected > 1.1 * alike


def test_how_much_texts_differ_is_found_again():
  rng, new = np.random.default_rng(0), 60
  domains = [np.array([[0.8], [0.6]]), np.array([[0.4], [0.5]])]

  def drawn(rates, spread):
    """Returns the rounds of texts whose log-odds differ, and the rates of all of their rounds."""
    accepted = []  # in each round of each text
    for table in shifted(rates, np.sqrt(spread) * rng.normal(size=300)):
      first, second = table[:, 0]
      hit = rng.random((new, 2)) < (first, second)
      emitted = 1 + hit[:, 0] + hit.all(axis=1)
      accepted.append(emitted[: 1 + np.sum(np.cumsum(emitted) < new)] - 1)
    whole = np.concatenate(accepted)
    found = np.mean(whole > 0), np.mean(whole > 1) / np.mean(whole > 0)
    return [len(one) for one in accepted], np.array(found)[:, None]

  for true in (0.0, 0.8, 1.6):
    rounds, rates = zip(*(drawn(own, true) for own in domains), strict=True)
    assert measured_spread(rounds, rates, new) == pytest.approx(true, rel=0.2, abs=0.05)
  # Few texts say little, and a single one says nothing.
  few = measured_spread([[40, 40, 41, 40]], domains[:1], new)
  assert few == pytest.approx(8 / 11 * SPREAD, abs=0.02)
  assert measured_spread([[40], [50]], domains, new) == SPREAD
  # Texts of one prompt are as one text.
  assert measured_spread([[20, 40, 60]] * 2, domains, new, different=[1, 1]) == SPREAD


def test_shifted_log_odds_keep_the_shares_of_ranks():
  rates = np.array([[0.5, 0.25], [0.0, 0.0], [1.0, 0.0]])
  (found,) = shifted(rates, np.log([2.0]))
  np.testing.assert_allclose(found, [[4 / 7, 2 / 7], [0, 0], [1, 0]], atol=1e-8)
  assert np.mean(_normal(9)) == pytest.approx(0) and np.var(_normal(9)) == pytest.approx(1)


def planner(*rates, alone=PLAIN):
  """Returns a planner of drafters with these rates in two domains."""
  curves = tuple(dataclasses.replace(one, alone=alone) for one in LATENCY.curves)
  latency = dataclasses.replace(LATENCY, curves=curves)
  drafters = [
    ProfiledDrafter(f"d{number}", acceptance(dict(zip("ab", own, strict=True)), depth=3), latency,
                    Siblings.ONE)
    for number, own in enumerate(rates)
  ]  # fmt: skip
  return FirstPlanner(drafters, sizes=(4,), new_tokens=65)


def test_a_batch_is_expected_to_be_slower_than_its_rows():
  its = planner([0.8, 0.4])
  for batch, low, high in ((1, 0.75, 1.0), (8, 0.3, 0.75)):
    competitors = its.start_competitors(batch)
    (competitor,) = competitors
    found = its.start_plan(batch).ranking[0]
    naive = expected_of(competitor, found)
    share = found.tokens_per_second / naive.tokens_per_second
    assert low < share < high


def test_a_plan_whose_drafts_are_hardly_accepted_can_be_saved(tmp_path):
  rates = [np.full((3, 1), rate) for rate in (0.01, 0.01)]
  assert WholeRuns(8, 64).rounds(chain(3), rates) <= 64
  found, file = planner([0.01, 0.01]).start_plan(8), tmp_path / "plan.json"
  (drafted,) = [one for one in found.ranking if one.drafter is not None]
  assert 1 <= drafted.expected_tokens < 1.01
  save_plan(file, found, dict(target="t", drafter="d0"))
  assert load_plan(file) == found


def test_a_drafter_on_the_host_is_no_faster_in_a_program_of_its_own():
  alone = 0.8 * PLAIN
  its = planner([0.8, 0.8], alone=alone)
  (drafter,) = its.drafters
  on_host = dataclasses.replace(its, drafters=[dataclasses.replace(drafter, on_host=True)])
  mine, theirs = (one.start_plan(1).ranking[0] for one in (its, on_host))
  assert mine.topology == theirs.topology and mine.expected_tokens == theirs.expected_tokens
  assert theirs.seconds - mine.seconds == pytest.approx(PLAIN - alone)
  assert its.start_plan(1).plain == on_host.start_plan(1).plain


def test_following_the_text_pays_where_another_drafter_is_best_in_each_domain():
  apart, alike = planner([0.9, 0.1], [0.1, 0.9]), planner([0.9, 0.9], [0.5, 0.5])
  assert apart.gain_of_following(1) > 0.3
  # Questions take time, and nothing is gained.
  assert -0.03 < alike.gain_of_following(1) < 0
  # A program of all drafters whose rounds take longer gains less.
  assert planner([0.9, 0.9], [0.5, 0.5], alone=0.8 * PLAIN).gain_of_following(1) < -0.1
  # Where nothing pays there is nothing to follow.
  assert planner([0.0, 0.0]).gain_of_following(1) == 0.0
