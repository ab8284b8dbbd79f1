"""Acceptance by formula, compared with enumeration of the verifiers and with published values."""

import jax
import numpy as np
import pytest

from mtjax.evaluate.exactness import emitted
from mtjax.evaluate.multi_draft.acceptance import RULES, acceptance
from mtjax.trees import k_ary
from mtjax.types import DraftScheme
from mtjax.verify import VERIFIERS
from mtjax.verify.optimal import optimal_acceptance

VOCAB, DRAFTS = 5, (1, 2, 3)
# Acceptance of n drafts by an enumeration that is not this project's code (float64): rrs_with,
# rrs_without, kseq, greedy_plus_one, and spechub, which is for pairs alone.
PAIRS = {
  "A": ([0.5, 0.25, 0.15, 0.1, 0], [0.1, 0.2, 0.3, 0.4, 0]),
  "B": ([0.4, 0.3, 0.15, 0.1, 0.05], [0.35, 0.15, 0.3, 0.15, 0.05]),
  "C": ([1 / 3, 2 / 3, 0, 0, 0], [2 / 3, 1 / 3, 0, 0, 0]),
}
KNOWN = {
  ("A", 2): (0.645, 0.6714285714, 0.6584428877, 0.6666666667, 0.6666666667),
  ("A", 3): (0.6805, 0.7719047619, 0.7100030787, 0.8333333333, None),
  ("B", 2): (0.88, 0.8909663866, 0.8979240019, 0.9307692308, 0.9307692308),
  ("B", 3): (0.898, 0.9260673518, 0.9347176266, 1.0, None),
  ("C", 2): (0.7777777778, 1.0, 0.8114195153, 1.0, 1.0),
}


@pytest.fixture(scope="module")
def cases():
  """Returns p, q and acceptances: random pairs, extreme ones, and `PAIRS`."""
  rng = np.random.default_rng(2)
  p, q = (rng.dirichlet(np.full(VOCAB, 0.6), 8) for _ in "pq")
  q[0, :2] = 0  # three tokens: the last of four drafts would have nothing left
  q[1] = [0.5, 0.5, 0, 0, 0]
  q[2] = [1 - 4e-12, *[1e-12] * 4]
  p[3] = q[3]
  p[4, :3] = 0
  known = [np.array(x) for x in zip(*PAIRS.values(), strict=True)]
  p, q = (np.concatenate([x, y]) for x, y in zip((p, q), known, strict=True))
  p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
  return p, q, acceptance(p, q, DRAFTS, samples=4096, key=jax.random.key(1))


@pytest.mark.parametrize(
  ("scheme", "rule"), [(scheme, rule) for scheme, rules in RULES.items() for rule in rules]
)
def test_equals_enumeration_of_the_verifier(cases, scheme, rule):
  p, q, result = cases
  everywhere = [np.repeat(x[:, None], VOCAB + 1, axis=1) for x in (p, q)]
  for at, n in enumerate(DRAFTS):
    if scheme is DraftScheme.PAIR and n != 2:
      assert np.isnan(result.mean[rule][:, at]).all()
      continue
    expected = emitted(VERIFIERS[rule], k_ary((n,)), scheme, *everywhere, pad=(4, 1, 3)).tokens - 1
    # Five standard errors; zero where the mean over drafts is exact.
    allowed = 1e-10 + 5 * result.error[rule][:, at]
    assert (np.abs(result.mean[rule][:, at] - expected) <= allowed).all(), n


def test_only_without_replacement_of_three_drafts_is_sampled(cases):
  _, _, result = cases
  for rule, error in result.error.items():
    if rule == "rrs_without":
      assert not error[:, :2].any() and 0 < error[:, 2].max() < 3e-3
    else:
      assert not error.any()


@pytest.mark.parametrize(("pair", "n"), KNOWN)
def test_values_of_a_separate_enumeration(cases, pair, n):
  _, _, result = cases
  place, at = 8 + list(PAIRS).index(pair), DRAFTS.index(n)
  rules = ("rrs_with", "rrs_without", "kseq", "greedy_plus_one", "spechub")
  for rule, expected in zip(rules, KNOWN[pair, n], strict=True):
    if expected is not None:
      allowed = 1e-9 + 5 * result.error[rule][place, at]
      assert abs(result.mean[rule][place, at] - expected) <= allowed, rule


def test_no_verifier_passes_its_bound_in_a_larger_vocabulary():
  """Compares sharp and flat pairs of 300 tokens; greedy_plus_one, spechub and delta are optimal."""
  rng = np.random.default_rng(4)
  logits = rng.normal(size=(6, 300)) * np.array([1, 1, 3, 3, 9, 9])[:, None]
  p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (logits, 0.7 * logits))
  result = acceptance(p, q, DRAFTS, samples=64)
  for scheme, rules in RULES.items():
    for at, n in enumerate(DRAFTS):
      if scheme is DraftScheme.PAIR and n != 2:
        continue
      best = [optimal_acceptance(*pair, n, scheme) for pair in zip(p, q, strict=True)]
      for rule in rules:
        gap = best - result.mean[rule][:, at]
        assert (gap >= -1e-10 - 5 * result.error[rule][:, at]).all(), (rule, n)
        if rule in ("greedy_plus_one", "spechub", "delta"):
          assert np.abs(gap).max() < 1e-10, (rule, n)


@pytest.mark.parametrize(
  ("p", "q", "drafts", "samples", "message"),
  [
    ((2, 3), (2, 4), (1,), 2, "got shapes"),
    ((2, 3), (2, 3), (), 2, "from 1 to V = 3, got "),
    ((2, 3), (2, 3), (0, 1), 2, "from 1 to V = 3, got "),
    ((2, 3), (2, 3), (1, 4), 2, "from 1 to V = 3, got "),
    ((2, 3), (2, 3), (1,), 1, "at least 2 samples, got 1"),
  ],
)
def test_refusals(p, q, drafts, samples, message):
  with pytest.raises(ValueError, match=message):
    acceptance(np.ones(p), np.ones(q), drafts, samples=samples)
