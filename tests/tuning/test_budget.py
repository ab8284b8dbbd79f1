"""Budgets: exact by enumeration, with rules that leak as negative controls; and calibration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.tuning.budget import (
  StaleBudget,
  admit,
  admit_budget,
  calibrated_survival,
  calibration_error,
  fit_temperatures,
  survival,
)
from tests.tuning.emitted_rows import conditional, confidences, joint, text_probs

ROWS, CONTEXTS = 2, 7
# Speeds by entries: the pass of 5 costs little more than that of 4, as sizes of programs make it.
STAIRS = np.array([9.0, 9.0, 1.0, 0.62, 0.60, 0.595, 0.59])
SMOOTH = np.array([9.0, 9.0, 1.0, 0.85, 0.72, 0.6, 0.5])

ADMIT = jax.jit(jax.vmap(lambda c, speeds: admit(survival(c), speeds), in_axes=(0, None)))
CALIBRATED = jax.jit(calibrated_survival)
ADMIT_BUDGET = jax.jit(
  jax.vmap(lambda c, budget: admit_budget(survival(c), budget), in_axes=(0, None))
)


def world(seed):
  """Returns random targets, drafters and confidences by context, one of each per row."""
  rng = np.random.default_rng(seed)
  p, q = (rng.dirichlet(np.ones(2), (ROWS, CONTEXTS)) for _ in range(2))
  return p, q, rng.uniform(0.05, 1, (ROWS, CONTEXTS))


@functools.cache
def cases(seed):
  """Returns the confidences of all drafts that the rows can sample, by draft."""
  p, q, confidence = world(seed)
  found = {}
  joint(p, q, lambda drafts: found.setdefault(drafts, confidences(confidence, drafts))[:, 0] * 0)
  return found


def by_table(lengths):
  """Returns a rule that looks lengths up by draft."""
  return lambda drafts: lengths[drafts]


def total_variation(seed, lengths):
  p, q, _ = world(seed)
  wanted = np.multiply.outer(text_probs(p[0]), text_probs(p[1]))
  return 0.5 * np.abs(joint(p, q, by_table(lengths)) - wanted).sum()


def lengths_of(function, seed, *rest):
  found = cases(seed)
  out = np.asarray(function(np.array(list(found.values()), np.float32), *rest))
  return dict(zip(found, out, strict=True))


def yields(confidence, admitted):
  """Returns the tokens that a pass is expected to yield with the `admitted` likeliest drafts."""
  ranked = np.sort(np.cumprod(confidence, axis=1).ravel())[::-1]
  return ROWS + ranked[:admitted].sum()


def best_over_all(confidence, speeds):
  """The leaking rule: the number of drafts with the largest tokens per second over all numbers."""
  return int(np.argmax([yields(confidence, m) * speeds[ROWS + m] for m in range(5)]))


@pytest.mark.parametrize("speeds", [STAIRS, SMOOTH])
@pytest.mark.parametrize("seed", range(4))
def test_admission_until_the_first_loss_keeps_the_joint_distribution(seed, speeds):
  lengths = lengths_of(ADMIT, seed, speeds)
  assert total_variation(seed, lengths) < 1e-12
  if seed == 0 and speeds is SMOOTH:  # the rule does decide by what was drafted before
    assert len({tuple(one) for one in lengths.values()}) > 1


@pytest.mark.parametrize("budget", range(5))
def test_a_budget_that_is_known_before_keeps_the_joint_distribution(budget):
  lengths = lengths_of(ADMIT_BUDGET, 1, budget)
  assert {int(sum(one)) for one in lengths.values()} == {budget}
  assert total_variation(1, lengths) < 1e-12


def leaking(seed, speeds):
  budgets = {d: best_over_all(c, speeds) for d, c in cases(seed).items()}
  each = {b: lengths_of(ADMIT_BUDGET, seed, b) for b in set(budgets.values())}
  return {drafts: each[budget][drafts] for drafts, budget in budgets.items()}


def test_the_best_number_over_all_leaks_the_drafted_token():
  """The negative control: the same tokens per second, from confidences of this round's drafts."""
  distances = [total_variation(seed, leaking(seed, STAIRS)) for seed in range(4)]
  assert max(distances) > 0.01


def test_a_rule_that_sees_the_token_itself_leaks():
  """The second control: drafts of low probability under the drafter are left out."""
  _, q, _ = world(0)

  def kept(drafts):
    out = []
    for table, draft in zip(q, drafts, strict=True):
      sure = [conditional(table, draft[:i])[draft[i]] >= 0.5 for i in range(2)]
      out.append(int(np.cumprod(sure).sum()))
    return out

  assert total_variation(0, {drafts: kept(drafts) for drafts in cases(0)}) > 0.05


def test_stale_budgets_keep_the_joint_distribution_in_every_round():
  """The budget of a round is made from the drafts of the round before, whatever they were."""
  state = StaleBudget.start(ROWS, 2)
  step = jax.jit(lambda state, c: state.update(survival(c), 0.5))
  budget_of = jax.jit(lambda state: state.budget(ROWS, jnp.asarray(STAIRS)))
  before = list(cases(2).values())
  seen = set()
  for confidence in before[:8]:  # what may have been drafted in the round before
    budget = int(budget_of(step(state, jnp.asarray(confidence, jnp.float32))))
    seen.add(budget)
    assert total_variation(3, lengths_of(ADMIT_BUDGET, 3, budget)) < 1e-12
  assert len(seen) > 1


def test_the_example_of_dspark():
  """Its appendix A: (.7, .3) becomes (.85, .15) by the best number over all."""
  p, q = np.array([0.7, 0.3]), np.array([0.5, 0.5])
  speeds, second = np.array([9.0, 1.0, 0.5, 0.45]), (0.9, 0.0)
  confidence = np.array([[[0.8, c]] for c in second], np.float32)

  def output(admitted):
    out = np.zeros(2)
    residual = np.maximum(p - q, 0) / np.maximum(p - q, 0).sum()
    for token in range(2):
      accept = min(1, p[token] / q[token])
      one = np.eye(2)[token] * accept + (1 - accept) * residual
      out += q[token] * (one if admitted[token] else p)
    return out

  exact = np.asarray(ADMIT(confidence, speeds))[:, 0] > 0
  assert output(exact) == pytest.approx(p) and exact.tolist() == [False, False]
  theta = [[1.0, 1.8 * 0.5, (1.8 + 0.8 * c) * 0.45] for c in second]
  leaks = [int(np.argmax(one)) > 0 for one in theta]
  assert output(leaks) == pytest.approx([0.85, 0.15])


def test_equal_survival_goes_by_position_and_then_by_row():
  confidence = np.ones((1, 3, 2), np.float32)
  for budget, lengths in ((1, [1, 0, 0]), (3, [1, 1, 1]), (4, [2, 1, 1]), (6, [2, 2, 2])):
    assert np.asarray(ADMIT_BUDGET(confidence, budget))[0].tolist() == lengths


def test_admission_stops_where_tokens_per_second_stop_rising():
  confidence = np.array([[[0.9, 0.8], [0.5, 0.1]]], np.float32)
  ranked, speeds = [0.9, 0.72, 0.5, 0.05], SMOOTH
  theta = [(2 + sum(ranked[:m])) * speeds[2 + m] for m in range(5)]
  stop = next(m for m in range(4) if theta[m + 1] <= theta[m])
  assert int(np.asarray(ADMIT(confidence, speeds)).sum()) == stop


def test_speeds_must_be_known_for_all_drafts():
  with pytest.raises(ValueError, match="2 rows of 2 drafts are up to 6 entries"):
    admit(jnp.ones((2, 2)), jnp.ones(6))
  with pytest.raises(ValueError, match="2 rows and 4 drafts are up to 6 entries"):
    StaleBudget(jnp.ones(4)).budget(2, jnp.ones(6))


def drafts(count, rng, scale=(0.4, 0.5, 2.5, 1.8, 0.6)):
  """Returns confidences that are wrong by a factor per position, and what was accepted."""
  true = 1.0 + 1.5 * rng.normal(size=(count, len(scale)))
  accepted = rng.random((count, len(scale))) < 1 / (1 + np.exp(-true))
  return true * scale, np.cumprod(accepted, axis=1).sum(axis=1)


def errors(logits, accepted, temperature):
  said = np.asarray(CALIBRATED(logits, temperature))
  return [calibration_error(said[:, k], accepted > k) for k in range(logits.shape[1])]


def test_sequential_temperatures_calibrate_survival():
  rng = np.random.default_rng(0)
  logits, accepted = drafts(6000, rng)
  temperature = fit_temperatures(logits, accepted)
  others = drafts(6000, rng)
  before, after = errors(*others, np.ones(5)), errors(*others, temperature)
  assert max(before) > 0.08 and max(after) < 0.02
  assert temperature == pytest.approx([0.4, 0.5, 2.5, 1.8, 0.6], rel=0.25)
  last = np.array([*temperature[:-1], 1.0])  # the control: one position left out
  assert errors(*others, last)[-1] > errors(*others, temperature)[-1]


def test_the_calibration_error_of_known_cases():
  assert calibration_error(np.full(10, 0.3), np.arange(10) < 3) == pytest.approx(0)
  assert calibration_error(np.full(10, 0.3), np.arange(10) < 8) == pytest.approx(0.5)
  half = np.array([0.1] * 10 + [0.95] * 10)
  assert calibration_error(half, np.arange(20) >= 10) == pytest.approx((0.1 + 0.05) / 2)


def test_calibration_needs_one_count_per_draft():
  with pytest.raises(ValueError, match="2 numbers from 0 to 3"):
    fit_temperatures(np.zeros((2, 3)), np.array([4, 0]))
  with pytest.raises(ValueError, match="must be finite"):
    fit_temperatures(np.full((2, 3), np.inf), np.array([1, 0]))
