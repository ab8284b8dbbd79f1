"""KLASS and PC-Sampler: numbers written by hand, and the published programs on scripted logits."""

import itertools
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.data.tokenizers import ByteTokenizer
from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.candidates import candidates_of
from mtjax.diffusion.denoising import denoise
from mtjax.diffusion.order import PositionCalibrated, SampledProbability, Stability, TopMargin
from mtjax.diffusion.order.token_frequencies import TokenFrequencies, get_frequencies
from mtjax.diffusion.transfer import Klass, LladaCounts, OneByOne, Threshold
from mtjax.sampling.categorical import argmax
from tests.diffusion.tiny_masked import PARAMS, PROMPTS, WHOLE, V
from tests.diffusion.views import decode_scripted, make_view

PASSES, ROWS, SIZE, VOCAB = 16, 24, 8, 6
MASK = VOCAB - 1
RNG = np.random.default_rng(11)
# Of one text that becomes clearer from pass to pass, at some positions sooner than at others.
TEXT = 3 * RNG.normal(size=(1, ROWS, SIZE, VOCAB))
NOISE = RNG.normal(size=(PASSES, ROWS, SIZE, VOCAB))
FADING = RNG.uniform(0.3, 1.0, (ROWS, SIZE, 1)) ** np.arange(PASSES)[:, None, None, None]
SCRIPT = (TEXT + 2 * FADING * NOISE).astype(np.float32)


def softmax(logits):
  logits = np.where(np.arange(VOCAB) == MASK, -np.inf, logits.astype(np.float64))
  p = np.exp(logits - logits.max(-1, keepdims=True))
  return p / p.sum(-1, keepdims=True)


def best(score, masked, count):
  return np.isin(
    np.arange(SIZE), np.argsort(np.where(masked, -score, np.inf), kind="stable")[:count]
  )


def check(policy, published, steps):
  canvases, count = decode_scripted(policy, SCRIPT, steps=steps)
  for row in range(ROWS):
    expected = list(published(row))
    assert count[row] == len(expected), f"row {row}"
    np.testing.assert_array_equal(canvases[: len(expected), row], expected, f"row {row}")
  return count


def klass_in_numpy(row, threshold, drift, changes, steps):
  """Yields the canvases of `stable_confident_decode` (2511.05664), with passes to the end."""
  x, before = np.full(SIZE, MASK), np.zeros((SIZE, VOCAB))
  history = np.zeros((SIZE, changes))
  for step in itertools.count():
    masked, p = x == MASK, softmax(SCRIPT[step, row])
    moved = (p * (np.log(p + 1e-12) - np.log(before + 1e-12))).sum(-1)
    history, before = np.append(history[:, 1:], moved[:, None], axis=1), p
    stable = (history < drift).all(axis=1) & (step >= changes - 1)
    chosen = masked & stable & (p.max(-1) > threshold)
    if not chosen.any():
      count = max(SIZE // steps + (step < SIZE % steps), 1)
      chosen = masked & best(p.max(-1), masked, count)
    x = np.where(chosen, p.argmax(-1), x)
    yield x
    if not (x == MASK).any():
      return


@pytest.mark.parametrize(
  ("threshold", "drift", "changes", "steps"),
  [(0.5, 0.3, 1, SIZE), (0.6, 0.1, 2, SIZE), (0.5, 0.3, 2, 5)],
)
def test_klass(threshold, drift, changes, steps):
  policy = DecidingPolicy(Stability(changes=changes), Klass(threshold, drift))
  count = check(policy, lambda row: klass_in_numpy(row, threshold, drift, changes, steps), steps)
  assert len(set(count)) > 1 and count.min() < steps, "passes must decide several positions"


def test_klass_without_a_bound_on_the_change_is_a_threshold_from_the_second_pass_on():
  """Negative control: drifts matter, and the first pass, which knows none, decides one position."""
  loose = DecidingPolicy(Stability(changes=1), Klass(0.6, drift=20.0))
  count = check(loose, lambda row: klass_in_numpy(row, 0.6, 20.0, 1, SIZE), SIZE)
  strict = decode_scripted(DecidingPolicy(Stability(), Klass(0.6, 0.01)), SCRIPT, steps=SIZE)[1]
  assert count.mean() < 5 < strict.mean()
  never = decode_scripted(DecidingPolicy(Stability(), Klass(1.0)), SCRIPT, steps=SIZE)[1]
  assert (never == SIZE).all()


def logits_of(*probabilities):
  return jnp.log(jnp.asarray(probabilities, jnp.float32))[None]


def test_the_drift_is_the_largest_of_the_last_changes():
  order = Stability(changes=2).for_rows(1)
  tables = [
    logits_of([0.5, 0.5], [0.9, 0.1]),
    logits_of([0.75, 0.25], [0.9, 0.1]),
    logits_of([0.5, 0.5], [0.9, 0.1]),
    logits_of([0.5, 0.5], [0.8, 0.2]),
  ]
  state, found = order.start(1, 2, 2), []
  for step, logits in enumerate(tables):
    view, state = order.prepare(state, make_view(logits, step=step))
    found.append(np.asarray(view.drift[0]))
  up = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL((3/4, 1/4) || (1/2, 1/2)) = 0.131
  down = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)  # KL((1/2, 1/2) || (3/4, 1/4)) = 0.144
  assert up == pytest.approx(0.1308, abs=1e-4) and down == pytest.approx(0.1438, abs=1e-4)
  other = 0.8 * math.log(8 / 9) + 0.2 * math.log(2)
  assert np.isinf(found[:2]).all()
  np.testing.assert_allclose(found[2:], [[down, 0.0], [down, other]], atol=1e-6)
  # A block begins with no pair of passes.
  view, _ = order.prepare(state, make_view(tables[0], step=0))
  assert np.isinf(view.drift).all()


def test_klass_needs_both_and_else_decides_the_best_ones():
  p = [[0.95, 0.05], [0.05, 0.95], [0.7, 0.3], [0.99, 0.01]]
  drift = jnp.array([[0.001, 0.02, 0.001, 0.02]] * 3)
  view = make_view(jnp.repeat(logits_of(*p), 3, axis=0), total=4, steps=[4, 4, 2], drift=drift)
  candidates = candidates_of(view, argmax(view.logits))
  score = Stability().for_rows(3).score(view, candidates)
  rule = Klass([0.9, 0.96, 0.96], drift=[0.01, 0.01, 0.01]).for_rows(3)
  found = np.asarray(rule.choose(view, candidates, score))
  # The first row has one that is both; the others have none: one, and two, of 4 in 4 and 2 passes.
  np.testing.assert_array_equal(found, [[1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 1]])
  loose = Klass(0.9, drift=0.03).for_rows(3)
  np.testing.assert_array_equal(loose.choose(view, candidates, score), [[1, 1, 0, 1]] * 3)


COUNTS = dict(num_token=1000, p_baseline_dict={"0": 600, "1": 399, "3": 1})
FREQUENCY = np.array([0.6, 0.399, 0.001, 0.001, 0.001, 0.001])


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
  path = tmp_path_factory.mktemp("counts") / "P_baseline.json"
  path.write_text(json.dumps(COUNTS))
  return str(path)


@pytest.mark.parametrize(
  ("decay", "limit", "steps"), [(0.25, 10.0, SIZE), (0.0, 1.0, SIZE), (0.5, 10.0, 3)]
)
def test_pc_sampler(counted, decay, limit, steps):
  """`generate_with_pc_sampler`: the best ones by exp(-decay i) min(-p log(f + 1e-9), limit)."""

  def published(row):
    x = np.full(SIZE, MASK)
    for step in range(steps):
      p = softmax(SCRIPT[step, row])
      confidence = -p.max(-1) * np.log(FREQUENCY[p.argmax(-1)] + 1e-9)
      score = np.exp(-decay * np.arange(SIZE)) * np.minimum(confidence, limit)
      masked = x == MASK
      count = SIZE // steps + (step < SIZE % steps)
      x = np.where(masked & best(score, masked, count), p.argmax(-1), x)
      yield x

  policy = DecidingPolicy(PositionCalibrated(decay, limit, counted), LladaCounts())
  assert (check(policy, published, steps) == steps).all()
  plain = decode_scripted(DecidingPolicy(SampledProbability(), LladaCounts()), SCRIPT, steps=steps)
  calibrated = decode_scripted(policy, SCRIPT, steps=steps)
  assert (plain[0] != calibrated[0]).any()


def scores(order, *probabilities):
  view = make_view(logits_of(*probabilities))
  candidates = candidates_of(view, argmax(view.logits))
  return np.exp(np.asarray(order.for_rows(1).score(view, candidates))[0])


def test_scores_by_hand(counted):
  p = [
    [0.5, 0.3, 0.1, 0.1, 0.0, 0.0],
    [0.3, 0.2, 0.5, 0.0, 0.0, 0.0],
    [0.0, 0.9, 0.1, 0.0, 0.0, 0.0],
  ]
  wanted = [-0.5 * math.log(0.6), -0.5 * math.log(0.001), -0.9 * math.log(0.399)]
  assert wanted == pytest.approx([0.2554, 3.4539, 0.8269], abs=1e-4)
  found = scores(PositionCalibrated(0.0, 10.0, counted), *p)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  found = scores(PositionCalibrated(math.log(2), 3.0, counted), *p)
  np.testing.assert_allclose(found, [wanted[0], 3.0 / 2, wanted[2] / 4], rtol=1e-5)
  # Without a file every token has the frequency 1/6.
  found = scores(PositionCalibrated(0.0), *p)
  np.testing.assert_allclose(found, np.array([0.5, 0.5, 0.9]) * math.log(6), rtol=1e-5)


def test_places_far_on_the_right_still_differ():
  view = make_view(jnp.zeros((1, 700, 3)))
  order = PositionCalibrated(0.25).for_rows(1)
  score = order.score(view, candidates_of(view, jnp.zeros((1, 700), jnp.int32)))
  assert (np.diff(np.asarray(score)[0]) < 0).all()


def test_frequencies_are_counted_written_and_read(tmp_path):
  counts = TokenFrequencies.of_texts(ByteTokenizer(), ["abba", "b"])
  assert counts.total == 5 and counts.counts[[97, 98, 99]].tolist() == [2, 3, 0]
  counts.save(tmp_path / "counts.json")
  again = TokenFrequencies.read(tmp_path / "counts.json", 258)
  np.testing.assert_array_equal(again.counts, counts.counts)
  np.testing.assert_allclose(again.frequencies[[97, 98, 99]], [0.4, 0.6, 0.2], rtol=1e-6)


def test_the_bundled_frequencies_are_those_of_the_bundled_text():
  found = get_frequencies("bundled", 4096)
  assert found.shape == (4096,) and 0.9 < found.sum() < 1.2  # unseen tokens have a share, too
  assert found.max() > 0.01


def pc_sampler(frequencies):
  order = PositionCalibrated(frequencies=frequencies)
  return denoise(
    WHOLE, PARAMS, PROMPTS, plan=BlockPlan(4, 4, 4), policy=DecidingPolicy(order, OneByOne())
  )


@pytest.mark.parametrize(
  "call,message",
  [
    (
      lambda: DecidingPolicy(SampledProbability(), Klass()),
      "SampledProbability does not measure: use",
    ),
    (lambda: DecidingPolicy(TopMargin(), Klass()), "TopMargin does not measure: use Stability"),
    (lambda: DecidingPolicy(PositionCalibrated(), Threshold()), "PositionCalibrated are not: use"),
    (lambda: Klass(drift=0.0), "drift must be above 0.0: got 0.0"),
    (lambda: Klass(threshold=0.0), "threshold must be above 0.0, at most 1.0: got 0.0"),
    (lambda: Stability(changes=0), "changes must be at least 1, got 0"),
    (lambda: PositionCalibrated(decay=-0.1), "decay must be at least 0.0: got -0.1"),
    (lambda: pc_sampler("bundled"), "of the bundled models' 4096 tokens, and this model has 11"),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.parametrize(
  "content,message",
  [
    ({}, 'must hold {"num_token"'),
    (dict(num_token=0, p_baseline_dict={}), 'must hold {"num_token"'),
    (dict(num_token=2, p_baseline_dict={"a": 2}), "'a': 2 is no count of a token"),
    (dict(num_token=2, p_baseline_dict={"1": -2}), "'1': -2 is no count of a token"),
    (dict(num_token=2, p_baseline_dict={"11": 2}), "counts the token 11, and .* has 11 tokens"),
  ],
)
def test_files_of_another_form_are_refused_before_compilation(tmp_path, content, message):
  path = tmp_path / "counts.json"
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=message):
    pc_sampler(str(path))


def test_a_file_that_is_not_there_is_named():
  with pytest.raises(FileNotFoundError, match="no file 'none.json' of token frequencies: .*save"):
    pc_sampler("none.json")


@pytest.mark.parametrize("order,transfer", [(Stability(changes=1), Klass(0.2, 1.0))])
def test_a_row_is_the_same_alone_and_in_later_blocks(order, transfer):
  policy = DecidingPolicy(order, transfer)
  settings = dict(plan=BlockPlan(8, 4, 8), policy=policy)
  both = denoise(WHOLE, PARAMS, PROMPTS, **settings)
  alone = denoise(WHOLE, PARAMS, PROMPTS[1:], **settings)
  assert alone.tokens[0] == both.tokens[1] and alone.decided_at[0] == both.decided_at[1]
  assert both.passes.max() < 8 and V == 11
