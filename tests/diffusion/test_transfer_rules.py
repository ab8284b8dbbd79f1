"""Transfer rules against their definitions written as loops, and against published loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.candidates import candidates_of
from mtjax.diffusion.order import (
  Halton,
  LeftToRight,
  LowEntropy,
  RandomPositions,
  SampledProbability,
)
from mtjax.diffusion.random_numbers import Stream, gumbel
from mtjax.diffusion.revise import RemdmCap, RemdmConf, RemdmLoop, RemdmRescale
from mtjax.diffusion.revise.remdm import check_sigma, max_sigma, unmask_probs
from mtjax.diffusion.transfer import (
  Ancestral,
  Dilated,
  DreamCounts,
  EntropyBound,
  Factor,
  FallingThreshold,
  FirstHitting,
  Hierarchy,
  Klass,
  LladaCounts,
  MaskGit,
  OneByOne,
  Threshold,
  WinoDraft,
)
from mtjax.sampling.statistics import negative_entropy
from tests.diffusion.views import make_view

ROWS, SIZE, VOCAB = 64, 7, 5
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(ROWS, SIZE, VOCAB)).astype(np.float32) * 3
OPEN = RNG.random((ROWS, SIZE)) < 0.7
OPEN[:, 0] |= ~OPEN.any(axis=1)
SCORE = RNG.random((ROWS, SIZE)).astype(np.float32) ** 0.2


@jax.jit
def choose(rule, view, score):
  return rule.choose(view, candidates_of(view, view.token), score)


def chosen_by(rule, view=None, score=SCORE):
  view = make_view(LOGITS, is_open=OPEN) if view is None else view
  return np.asarray(choose(rule.for_rows(len(score)), view, jnp.asarray(score)))


def best_first(row, score=SCORE):
  return sorted(np.flatnonzero(OPEN[row]), key=lambda i: -score[row, i])


def as_rows(sets):
  out = np.zeros((ROWS, SIZE), bool)
  for row, positions in enumerate(sets):
    out[row, list(positions)] = True
  return out


def factor_definition(c, factor):
  """Returns the largest n of theorem 1 of 2505.22618, at least 1; c descends."""
  f32 = np.float32
  return max(
    [1, *(n for n in range(1, len(c) + 1) if c[n - 1] >= f32(1) - f32(factor) / f32(n + 1))]
  )


def factor_as_published(c, factor):
  """Returns what `get_transfer_index_dynamic` decides: one too many if only the last one fails."""
  top = 0
  for top in range(len(c)):
    if c[top] < (-1 if top == 0 else 1 - factor / (top + 2)):
      break
  return top + 1 if top in (0, len(c) - 1) else top


@pytest.mark.parametrize("threshold", [0.5, 0.9, 1.0])
def test_threshold(threshold):
  expected = as_rows(
    {best_first(b)[0], *(i for i in best_first(b) if SCORE[b, i] >= np.float32(threshold))}
    for b in range(ROWS)
  )
  np.testing.assert_array_equal(chosen_by(Threshold(threshold)), expected)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_factor_is_the_definition_and_not_the_published_code(factor):
  counts = [factor_definition([SCORE[b, i] for i in best_first(b)], factor) for b in range(ROWS)]
  published = [
    factor_as_published([SCORE[b, i] for i in best_first(b)], factor) for b in range(ROWS)
  ]
  chosen = chosen_by(Factor(factor))
  np.testing.assert_array_equal(chosen, as_rows(best_first(b)[:n] for b, n in enumerate(counts)))
  assert (np.array(published) - counts).max() == 1 and (np.array(published) >= counts).all()


def test_the_published_factor_differs_in_three_cases_of_ten():
  """29 % of random confidences of up to 7 positions, as an independent count of 20,000 found."""
  rng, rows, size = np.random.default_rng(2), 20_000, 7
  number = rng.integers(1, size + 1, rows)
  is_open = np.arange(size) < number[:, None]
  score = (rng.random((rows, size)) ** 0.2).astype(np.float32)
  score = -np.sort(np.where(is_open, -score, 0.0), axis=1)
  view = make_view(np.zeros((rows, size, 2), np.float32), is_open=is_open)
  count = chosen_by(Factor(), view, score).sum(axis=1)
  published = [factor_as_published(c[:n], 1.0) for c, n in zip(score, number, strict=True)]
  assert (published != count).mean() == pytest.approx(0.29, abs=0.01)
  assert set(published - count) == {0, 1}


@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0])
def test_entropy_bound(gamma):
  entropy = -np.asarray(negative_entropy(jnp.asarray(LOGITS)), np.float64)
  chosen = chosen_by(EntropyBound(gamma), score=np.float32(-entropy))
  for row in range(ROWS):
    order = sorted(np.flatnonzero(OPEN[row]), key=lambda i: entropy[row, i])
    h = entropy[row, order]
    n = max(n for n in range(1, len(h) + 1) if n == 1 or h[:n].sum() - h[:n].max() <= gamma)
    np.testing.assert_array_equal(np.flatnonzero(chosen[row]), sorted(order[:n]))


def test_hierarchy():
  expected = []
  for row in range(ROWS):
    score, is_open = SCORE[row], OPEN[row]
    chosen, run = {best_first(row)[0]}, []
    for i in range(SIZE + 1):
      if i < SIZE and is_open[i]:
        run.append(i)
        if score[i] > np.float32(0.95):
          chosen.add(i)
      elif run:
        best = max(run, key=lambda j: score[j])
        if score[best] > np.float32(0.8):
          chosen.add(best)
        run = []
    expected.append(chosen)
  np.testing.assert_array_equal(chosen_by(Hierarchy(0.95, 0.8)), as_rows(expected))


def passes_of(rule, size, *, first=0, fixed=()):
  """Returns the offsets that each pass decides, in a block after `first` other positions."""
  masked, decided = np.zeros((2, 1, first + size), bool)
  masked[0, first:] = True
  masked[0, [first + i for i in fixed]] = False
  logits = np.zeros((1, first + size, 2), np.float32)
  passes = []
  while masked.any():
    view = make_view(logits, is_open=masked, decided=decided)
    chosen = chosen_by(rule, view, np.zeros((1, first + size), np.float32))
    passes.append((np.flatnonzero(chosen[0]) - first).tolist())
    masked, decided = masked & ~chosen, decided | chosen
  return passes


def test_dilated_passes_decide_finer_and_finer_grids():
  """The groups of 2506.19037, section 4, written out."""
  assert passes_of(Dilated(), 8) == [[0, 4], [2, 6], [1, 3, 5, 7]]
  assert passes_of(Dilated(), 16, first=3) == [[0, 8], [4, 12], [2, 6, 10, 14], [*range(1, 16, 2)]]
  assert passes_of(Dilated(3), 9) == [[0, 3, 6], [1, 2, 4, 5, 7, 8]]
  assert passes_of(Dilated(), 6) == [[0, 3], [1, 2, 4, 5]]
  assert passes_of(Dilated(), 1) == [[0]]


def test_a_dilated_pass_leaves_out_grids_without_masks():
  assert passes_of(Dilated(), 8, fixed=(4, 2, 6)) == [[0], [1, 3, 5, 7]]


def test_a_dilated_schedule_needs_a_base():
  with pytest.raises(ValueError, match="base must be at least 2, got 1"):
    Dilated(1)


def test_halton_order_reads_the_bits_of_a_position_backwards():
  """The sequence of base 2: 0, 1/2, 1/4, 3/4, 1/8, 5/8, 3/8, 7/8 of the block."""
  is_open = np.arange(11)[None] >= 3
  view = make_view(np.zeros((1, 11, 2), np.float32), is_open=is_open)
  score = np.asarray(Halton().score(view, candidates_of(view, view.token)))[0, 3:]
  assert np.argsort(-score).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]


def test_wino_draft():
  expected = []
  for row in range(ROWS):
    order = best_first(row)
    above = [i for i in order if SCORE[row, i] > np.float32(0.6)] or order[:1]
    expected.append(above[: min(max(int(len(order) * 0.7), 5), 20)])
  np.testing.assert_array_equal(chosen_by(WinoDraft()), as_rows(expected))


def test_llada_counts():
  """[3, 2, 2] is what `get_num_transfer_tokens` of LLaDA's generate.py returns for 7 and 3."""
  for steps, counts in ((3, [3, 2, 2]), (9, [1] * 7 + [0, 0])):
    view = make_view(LOGITS[: len(counts)], step=np.arange(len(counts)), steps=steps)
    chosen = chosen_by(LladaCounts(), view, SCORE[: len(counts)])
    np.testing.assert_array_equal(chosen.sum(axis=1), counts)


@pytest.mark.parametrize(
  "rule",
  [
    *(Threshold(1.0), FallingThreshold(), Factor(1e-6), Hierarchy(1.0, 1.0), Klass(), OneByOne()),
    *(WinoDraft(1.0), EntropyBound(0.0), LladaCounts(), Dilated(), FirstHitting()),
  ],
  ids=lambda rule: type(rule).__name__,
)
def test_rules_that_advance_decide_a_position_in_every_pass(rule):
  assert rule.advances
  is_open, total = OPEN, OPEN.sum(axis=1)
  for step in range(SIZE):
    numbers = dict(step=step, steps=2 * SIZE, total=total, drift=jnp.full(OPEN.shape, jnp.inf))
    view = make_view(LOGITS, is_open=is_open, decided=OPEN & ~is_open, **numbers)
    chosen = chosen_by(rule, view)
    assert (chosen <= is_open).all()
    assert (chosen.any(axis=1) | ~is_open.any(axis=1)).all()
    is_open = is_open & ~chosen
  assert not is_open.any()


@pytest.mark.parametrize("rule", [Ancestral(), DreamCounts(), MaskGit()])
def test_rules_that_may_decide_nothing_do_not_advance(rule):
  is_open = np.broadcast_to(np.arange(SIZE) == 0, OPEN.shape)
  view = make_view(LOGITS, is_open=is_open, steps=100, total=np.ones(ROWS), t=1.0, s=0.99)
  assert not rule.advances and not chosen_by(rule, view).any(axis=1).all()


def test_a_row_alone_is_the_row_in_its_batch():
  for rule in (Ancestral(), Factor(), EntropyBound(), Hierarchy()):
    view = make_view(LOGITS, is_open=OPEN, steps=4)
    alone = jax.tree.map(lambda x: x[5:6], view)
    np.testing.assert_array_equal(chosen_by(rule, view)[5:6], chosen_by(rule, alone, SCORE[5:6]))


def test_first_hitting_takes_a_uniform_position_and_the_time_of_its_jump():
  """Of n positions the first jumps at t u^(1/n): P(rate < x t) = x^n."""
  rows, is_open = 8192, np.array([True, False, True, True])
  view = make_view(np.zeros((rows, 4, 2), np.float32), is_open=np.tile(is_open, (rows, 1)), t=0.8)
  rule = FirstHitting().for_rows(rows)
  score = RandomPositions().score(view, candidates_of(view, view.token))
  count = np.asarray(choose(rule, view, score)).sum(axis=0)
  assert count.sum() == rows and count[1] == 0
  assert stats.chisquare(count[is_open]).pvalue > 1e-3
  assert stats.kstest((np.asarray(rule.next_rate(view)) / 0.8) ** 3, "uniform").pvalue > 1e-3
  assert stats.kstest((np.asarray(rule.next_rate(view)) / 0.8) ** 2, "uniform").pvalue < 1e-6


def test_noise_is_of_the_row_the_pass_and_the_position_and_nothing_else():
  wide = make_view(np.zeros((3, 6, 2), np.float32), passes=4)
  narrow = jax.tree.map(lambda x: x[1:2], wide)
  columns = ("logits", "scored", "token", "position", "masked", "open", "decided")
  narrow = narrow.replace(**{name: getattr(narrow, name)[:, 2:5] for name in columns})
  for stream in (Stream.ORDER, Stream.TRANSFER, Stream.REVISE):
    noise = np.asarray(gumbel(wide, stream))
    np.testing.assert_array_equal(gumbel(narrow, stream), noise[1:2, 2:5])
    assert len(np.unique(noise)) == noise.size
    later = gumbel(wide.replace(passes=wide.passes + 1), stream)
    assert not np.isin(later, noise).any()
  assert not np.isin(gumbel(wide, Stream.ORDER), gumbel(wide, Stream.TRANSFER)).any()


@pytest.mark.parametrize(("t", "s"), [(0.9, 0.5), (0.6, 0.2), (0.5, 0.0)])
def test_probabilities_of_remdm_are_negative_beyond_sigma_max_and_not_before(t, s):
  rates = jnp.full((1, 1), t), jnp.full((1, 1), s)
  largest = float(max_sigma(*(rate[0] for rate in rates))[0])
  assert largest == pytest.approx(min(1, s / (1 - t)))
  for sigma in np.linspace(0, largest, 5):
    unmask = float(unmask_probs(*rates, jnp.full((1, 1), sigma))[0, 0])
    assert unmask == pytest.approx(((1 - s) - (1 - sigma) * (1 - t)) / t, abs=1e-6)
    assert -1e-6 <= unmask <= 1 + 1e-6
  if largest < 1:
    beyond = unmask_probs(*rates, jnp.full((1, 1), largest + 0.01))
    assert beyond > 1, "staying masked has negative probability"
    with pytest.raises(ValueError, match="sigma must be from 0"):
      check_sigma(largest + 0.01, t, s)


def test_remdm_ends_in_float32_as_in_exact_arithmetic():
  """1 - s and 1 - t are both near 1 there: their difference would be off by 3e-5."""
  rates = jnp.full((1, 1), 2e-3), jnp.full((1, 1), 1e-3)
  assert float(unmask_probs(*rates, jnp.zeros((1, 1)))[0, 0]) == pytest.approx(0.5, abs=1e-6)
  steps = 1000
  view = make_view(LOGITS, is_open=OPEN, decided=~OPEN, step=steps - 1, steps=steps, t=1e-3, s=0.0)
  for revise in (RemdmCap(), RemdmRescale(), RemdmConf(), RemdmLoop()):
    probs = revise.for_rows(ROWS).probs(jnp.zeros((ROWS, SIZE)), view)
    assert (np.asarray(probs) == OPEN).all(), type(revise).__name__


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: Threshold(1.5), "threshold must be above 0.0, at most 1.0"),
    (lambda: Threshold([0.5, 0.5]).for_rows(3), "2 values for a batch of 3 rows"),
    (lambda: Threshold(0.0), "threshold must be above 0.0"),
    (lambda: Threshold(float("nan")), "threshold must be above 0.0"),
    (lambda: Hierarchy(0.9, 1.5), "low_threshold must be at least 0.0, at most 1.0"),
    (lambda: Factor([1.0, 0.0]), "factor must be above 0.0: got 0.0"),
    (lambda: RemdmLoop(t_on=0.05), "t_off must be below t_on"),
    (lambda: RemdmLoop(eta=0.2), "sigma must be from 0 to 0.111111"),
    (lambda: BlockPlan(8, 2, 3), "steps must be at least the number of blocks"),
    (lambda: BlockPlan(7, 2, 4), "length must be a multiple"),
    (lambda: DecidingPolicy(LowEntropy(), Threshold()), "compares scores with probabilities"),
    (lambda: DecidingPolicy(LeftToRight(), Ancestral()), "uniformly random order"),
    (lambda: DecidingPolicy(SampledProbability(), Threshold(), RemdmCap()), "use Ancestral"),
  ],
)
def test_refusals(make, message):
  with pytest.raises(ValueError, match=message):
    make()
