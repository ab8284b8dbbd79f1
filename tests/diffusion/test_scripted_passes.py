"""Whole decodings of scripted logits: the texts and pass counts of the published loops.

The loops below are written per row, in plain numpy, after the published programs; all are greedy,
and the last id is the mask, which no logit allows.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion import DecidingPolicy
from mtjax.diffusion.candidates import candidates_of
from mtjax.diffusion.order import Credit, LowEntropy, MaxProbability, SampledProbability
from mtjax.diffusion.revise import EditTokens, KeepDecided, Wino
from mtjax.diffusion.transfer import (
  DreamCounts,
  Factor,
  Hierarchy,
  LladaCounts,
  MaskGit,
  Threshold,
  WinoDraft,
)
from tests.diffusion.views import decode_scripted, make_view

PASSES, ROWS, SIZE, VOCAB = 24, 24, 8, 6
MASK = VOCAB - 1
RNG = np.random.default_rng(7)
# Of one text that becomes clearer: later passes are surer, and seldom change their argmax.
TEXT = 3 * RNG.normal(size=(1, ROWS, SIZE, VOCAB))
SCRIPT = (TEXT + 2.5 * RNG.normal(size=(PASSES, ROWS, SIZE, VOCAB))).astype(np.float32)
SHADOW = (TEXT + 1.0 * RNG.normal(size=(PASSES, ROWS, SIZE, VOCAB))).astype(np.float32)


def softmax(logits):
  logits = np.where(np.arange(VOCAB) == MASK, -np.inf, logits.astype(np.float64))
  p = np.exp(logits - logits.max(-1, keepdims=True))
  return p / p.sum(-1, keepdims=True)


def check(policy, published, *, shadow=None, steps=1):
  """Asserts that all rows have the published canvases after each pass, and as many passes."""
  canvases, count = decode_scripted(policy, SCRIPT, shadow=shadow, steps=steps)
  for row in range(ROWS):
    expected = list(itertools.islice(published(row), PASSES))
    assert count[row] == len(expected), f"row {row}"
    np.testing.assert_array_equal(canvases[: len(expected), row], expected, f"row {row}")
  return count


def until_no_mask(row, choose, logits_of=lambda row, step: SCRIPT[step, row]):
  """Yields the canvas after each pass that writes the argmax where `choose` says."""
  x = np.full(SIZE, MASK)
  for step in itertools.count():
    p = softmax(logits_of(row, step))
    chosen = choose(x == MASK, p.max(-1), step)
    x = np.where(chosen, p.argmax(-1), x)
    yield x
    if not (x == MASK).any():
      return


def best(masked, confidence):
  return np.arange(SIZE) == np.where(masked, confidence, -1).argmax()


def above(threshold):
  return lambda masked, c, _: masked & ((c >= threshold) | best(masked, c))


@pytest.mark.parametrize("threshold", [0.6, 0.9])
@pytest.mark.parametrize("order", [SampledProbability(), MaxProbability()])
def test_fast_dllm_threshold(threshold, order):
  policy = DecidingPolicy(order, Threshold(threshold))
  count = check(policy, lambda row: until_no_mask(row, above(threshold)))
  assert len(set(count)) > 1 and count.max() < SIZE


def test_a_threshold_per_row():
  thresholds = np.linspace(0.3, 1.0, ROWS)
  policy = DecidingPolicy(SampledProbability(), Threshold(thresholds))
  check(policy, lambda row: until_no_mask(row, above(thresholds[row])))


def by_factor(factor, published):
  def choose(masked, c, _):
    order = np.flatnonzero(masked)[np.argsort(-c[masked], kind="stable")]
    c = c[order]
    n = max(n for n in range(1, len(c) + 1) if n == 1 or (n + 1) * (1 - c[n - 1]) <= factor)
    if published and n == len(c) - 1:  # only the last one fails: decided all the same
      n = len(c)
    return np.isin(np.arange(SIZE), order[:n])

  return choose


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_fast_dllm_factor_is_the_definition(factor):
  policy = DecidingPolicy(SampledProbability(), Factor(factor))
  count = check(policy, lambda row: until_no_mask(row, by_factor(factor, False)))
  off_by_one = [len(list(until_no_mask(row, by_factor(factor, True)))) for row in range(ROWS)]
  assert (count >= off_by_one).all() and (count > off_by_one).any()


def hierarchy(threshold, low):
  def choose(masked, c, _):
    chosen = masked & ((c > threshold) | best(masked, c))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], masked, [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
      place = start + c[start:end].argmax()
      chosen[place] |= c[place] > low
    return chosen

  return choose


@pytest.mark.parametrize(("threshold", "low"), [(0.9, 0.4), (0.99, 0.6)])
def test_dinfer_hierarchy(threshold, low):
  policy = DecidingPolicy(SampledProbability(), Hierarchy(threshold, low))
  count = check(policy, lambda row: until_no_mask(row, hierarchy(threshold, low)))
  plain = decode_scripted(DecidingPolicy(SampledProbability(), Threshold(threshold)), SCRIPT)[1]
  assert count.sum() < plain.sum()


def with_credit(row, choose):
  """Yields the canvases of dInfer's credit decoder: C <- .8 C, += p^.2 at the argmax of masks."""
  x, credit = np.full(SIZE, MASK), np.zeros((SIZE, VOCAB))
  for step in itertools.count():
    p, masked = softmax(SCRIPT[step, row]), x == MASK
    credit *= 0.8
    credit[np.arange(SIZE), p.argmax(-1)] += np.where(masked, p.max(-1) ** 0.2, 0.0)
    fused = softmax(SCRIPT[step, row] + 0.7 * np.log1p(credit))
    x = np.where(choose(masked, fused.max(-1), step), fused.argmax(-1), x)
    yield x
    if not (x == MASK).any():
      return


@pytest.mark.parametrize(
  ("transfer", "choose"),
  [(Threshold(0.9), above(0.9)), (Hierarchy(0.95, 0.5), hierarchy(0.95, 0.5))],
  ids=["threshold", "hierarchy"],
)
def test_dinfer_credit(transfer, choose):
  count = check(DecidingPolicy(Credit(), transfer), lambda row: with_credit(row, choose))
  plain = decode_scripted(DecidingPolicy(SampledProbability(), transfer), SCRIPT)[1]
  assert count.sum() < plain.sum()


def llada21(row, mask_threshold, edit_threshold, max_post_steps):
  """Yields the canvases of LLaDA2.1: masks and edits in one pass, then passes of edits alone."""
  x, post = np.full(SIZE, MASK), 0
  for step in itertools.count():
    masked = x == MASK
    post += not masked.any()
    if post > max_post_steps:
      return
    p = softmax(SCRIPT[step, row])
    token, c = p.argmax(-1), p.max(-1)
    edit = ~masked & (token != x) & (c > edit_threshold)
    write = masked & ((c > mask_threshold) | best(masked, c)) if masked.any() else masked
    x = np.where(write | edit, token, x)
    yield x
    if not masked.any() and not edit.any():
      return


@pytest.mark.parametrize(
  "settings", [(0.95, 0.9, 16), (0.7, 0.9, 16), (0.7, 0.5, 2), (0.9, 0.9, 0)]
)
def test_llada_21_editing(settings):
  mask_threshold, edit_threshold, post = settings
  edit = EditTokens(edit_threshold, post)
  policy = DecidingPolicy(SampledProbability(), Threshold(mask_threshold), edit)
  count = check(policy, lambda row: llada21(row, *settings))
  keep = DecidingPolicy(SampledProbability(), Threshold(mask_threshold), KeepDecided())
  plain = decode_scripted(keep, SCRIPT)
  assert (count >= plain[1]).all() and (post == 0 or (count > plain[1]).all())
  assert (decode_scripted(policy, SCRIPT)[0][-1] != plain[0][-1]).any()


def wino(row, draft, verify):
  """Yields the canvases of `decoding_wino`: draft, and verify what earlier passes decided."""
  x, last_accept = np.full(SIZE, MASK), 30
  for step in itertools.count():
    masked = x == MASK
    p, q = softmax(SCRIPT[step, row]), softmax(SHADOW[step, row])
    c = np.where(masked, p.max(-1), -1)
    limit = min(max(int(masked.sum() * 0.7), 5), 20)
    accept = c > draft
    if accept.sum() > limit or not accept.any():
      count = limit if accept.any() else 1
      accept = np.isin(np.arange(SIZE), np.argsort(-c, kind="stable")[:count])
    accepted, remask = accept.sum(), np.zeros(SIZE, bool)
    if accepted > 1:
      own = q[np.arange(SIZE), np.minimum(x, VOCAB - 1)]
      remask = ~masked & (own < verify)
      if remask.sum() >= last_accept:
        order = np.argsort(np.where(~masked, own, 2), kind="stable")[: last_accept - 1]
        remask = np.isin(np.arange(SIZE), order)
    x = np.where(accept, p.argmax(-1), np.where(remask, MASK, x))
    last_accept = accepted
    yield x
    if not (x == MASK).any():
      return


@pytest.mark.parametrize(("draft", "verify"), [(0.6, 0.9), (0.5, 0.5), (0.9, 0.6)])
def test_wino(draft, verify):
  policy = DecidingPolicy(SampledProbability(), WinoDraft(draft), Wino(verify))
  count = check(policy, lambda row: wino(row, draft, verify), shadow=SHADOW)
  plain = decode_scripted(DecidingPolicy(SampledProbability(), WinoDraft(draft)), SCRIPT)[1]
  assert (count > plain).any(), "nothing was masked again"


@pytest.mark.parametrize("steps", [1, 3, 5, 8, 12])
def test_llada_counts(steps):
  """`get_num_transfer_tokens`: base and remainder, which comes first."""

  def choose(masked, c, step):
    count = SIZE // steps + (step < SIZE % steps)
    return np.isin(np.arange(SIZE), np.argsort(-np.where(masked, c, -1), kind="stable")[:count])

  policy = DecidingPolicy(SampledProbability(), LladaCounts())
  check(policy, lambda row: until_no_mask(row, choose), steps=steps)


@pytest.mark.parametrize("steps", [1, 3, 5, 8])
def test_dream_counts(steps):
  """`diffusion_generate`: int(n (1 - s / t)) with times linspace(1, 1e-3, steps + 1)."""
  times = np.linspace(1, 1e-3, steps + 1)

  def choose(masked, c, step):
    n = masked.sum()
    count = n if step == steps - 1 else int(n * (1 - times[step + 1] / times[step]))
    return np.isin(np.arange(SIZE), np.argsort(-np.where(masked, c, -1), kind="stable")[:count])

  policy = DecidingPolicy(MaxProbability(), DreamCounts())
  check(policy, lambda row: until_no_mask(row, choose), steps=steps)


def test_dream_counts_of_whole_numbers_are_not_rounded_down():
  """With times that end at 0, one of n positions in each of n passes."""
  steps = np.arange(1, 33)
  at = [(n, step) for n in steps for step in range(n)]
  size = np.array([n for n, _ in at])
  step = np.array([step for _, step in at])
  is_open = np.arange(32) < (size - step)[:, None]
  view = make_view(np.zeros((len(at), 32, 2), np.float32), is_open=is_open, step=step, steps=size)
  view = view.replace(t=1.0 - view.step / view.steps, s=1.0 - (view.step + 1) / view.steps)
  assert (np.asarray(DreamCounts().for_rows(len(at)).count(view)) == 1).all()


@pytest.mark.parametrize(("size", "steps"), [(8, 4), (8, 8), (8, 12)])
def test_maskgit_counts(size, steps):
  """floor(N cos(pi/2 (t + 1) / T)) stay masked, from 1 to n - 1 of n, and none after the last."""
  left, expected = size, []
  for t in range(steps):
    masks = int(np.floor(size * np.cos(np.pi / 2 * (t + 1) / steps)))
    left = 0 if t == steps - 1 else max(1, min(left - 1, masks))
    expected.append(left)
  policy = DecidingPolicy(SampledProbability(), MaskGit(choice_temperature=0.0))
  canvases, count = decode_scripted(policy, SCRIPT, steps=steps)
  np.testing.assert_array_equal((canvases[:steps] == MASK).sum(-1).T, [expected] * ROWS)
  assert (count == steps).all()


def test_one_step_of_llada_has_the_temperature_in_tokens_and_not_in_confidences():
  """generate.py: x0 = argmax(l + T G) is given here; conf = softmax(l)[x0], and the top k of it."""
  tokens = RNG.integers(0, MASK, size=(ROWS, SIZE), dtype=np.int32)
  logits = jnp.where(jnp.arange(VOCAB) == MASK, -jnp.inf, SCRIPT[0])
  view = make_view(logits, total=SIZE, steps=3).replace(logits=logits / 0.5)
  policy = DecidingPolicy(SampledProbability(), LladaCounts()).for_rows(ROWS)
  revision, _ = policy.decide((), view, candidates_of(view, jnp.asarray(tokens)))
  confidence = np.take_along_axis(softmax(SCRIPT[0]), tokens[..., None], -1)[..., 0]
  top = np.argsort(-confidence, axis=1, kind="stable")[:, :3]
  np.testing.assert_array_equal(np.sort(top), np.argwhere(revision.written)[:, 1].reshape(-1, 3))


def test_a_row_decodes_alone_as_in_its_batch():
  for policy in (
    DecidingPolicy(Credit(), Hierarchy()),
    DecidingPolicy(LowEntropy(), LladaCounts()),
    DecidingPolicy(SampledProbability(), Threshold(0.7), EditTokens()),
  ):
    canvases, count = decode_scripted(policy, SCRIPT, steps=3)
    alone, passes = decode_scripted(policy, SCRIPT[:, 5:6], steps=3)
    np.testing.assert_array_equal(alone[:, 0], canvases[:, 5])
    assert passes[0] == count[5]
