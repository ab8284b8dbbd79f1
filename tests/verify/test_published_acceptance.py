"""Acceptance and tokens that papers print, or that follow from a linear programme."""

import numpy as np
import pytest

from mtjax.evaluate.exactness import emitted, first
from mtjax.trees import chain, k_ary
from mtjax.types import DraftScheme
from mtjax.verify import VERIFIERS
from mtjax.verify.optimal import optimal_acceptance

WITH, WITHOUT, DELTA, PLUS, PAIR = (
  DraftScheme.WITH_REPLACEMENT,
  DraftScheme.WITHOUT_REPLACEMENT,
  DraftScheme.DELTA,
  DraftScheme.GREEDY_PLUS_ONE,
  DraftScheme.PAIR,
)

PAIRS_OF_PROBS = {
  "A": ([0.5, 0.25, 0.15, 0.1], [0.1, 0.2, 0.3, 0.4]),
  "B": ([0.4, 0.3, 0.15, 0.1, 0.05], [0.35, 0.15, 0.3, 0.15, 0.05]),
  "C": ([1 / 3, 2 / 3], [2 / 3, 1 / 3]),
}
# Acceptance at one position, from a linear programme and a separate enumeration: optima with
# replacement, without, and greedy drafts; then rrs_with, rrs_without, kseq, greedy_plus_one,
# delta, and sample_match of drafts with and without replacement.
TABLE = {
  ("A", 2): (0.69, 0.7345238095, 2 / 3, 0.645, 0.6714285714, 0.6584428877, 2 / 3)
  + (0.25, 0.3255, 0.3904166667),
  ("A", 3): (0.771, 0.9488095238, 5 / 6, 0.6805, 0.7719047619, 0.7100030787, 5 / 6)
  + (0.5, 0.43445, 0.6368452381),
  ("B", 2): (0.9775, 1.0, 0.9307692308, 0.88, 0.8909663866, 0.8979240019, 0.9307692308)
  + (0.55, 0.423375, 0.4818297724),
  ("B", 3): (1.0, 1.0, 1.0, 0.898, 0.9260673518, 0.9347176266, 1.0)
  + (0.85, 0.55018125, 0.6977340616),
  ("C", 2): (8 / 9, 1.0, 1.0, 7 / 9, 1.0, 0.8114195153, 1.0, 1.0, 2 / 3, 1.0),
}
OPTIMA = (WITH, WITHOUT, PLUS)
RULES = (
  ("rrs_with", WITH),
  ("rrs_without", WITHOUT),
  ("kseq", WITH),
  ("greedy_plus_one", PLUS),
  ("delta", DELTA),
  ("sample_match", WITH),
  ("sample_match", WITHOUT),
)


def everywhere(probs, vocab, length):
  """Returns the same probs in every context; missing tokens have probability 0."""
  return np.tile(np.pad(probs, (0, vocab - len(probs))), (1, first(vocab, length), 1))


def acceptance(name, scheme, p, q, n):
  p, q = everywhere(p, 5, 2), everywhere(q, 5, 2)
  found = emitted(VERIFIERS[name], k_ary((n,)), scheme, p, q, pad=(4, 1, 3))
  return float(found.tokens[0]) - 1


@pytest.mark.parametrize(("pair", "n"), TABLE)
def test_multi_draft_acceptance(pair, n):
  p, q = PAIRS_OF_PROBS[pair]
  found = [optimal_acceptance(np.array(p), np.array(q), n, scheme) for scheme in OPTIMA]
  found += [acceptance(name, scheme, p, q, n) for name, scheme in RULES]
  assert found == pytest.approx(TABLE[pair, n], abs=1e-10)


@pytest.mark.parametrize("pair", PAIRS_OF_PROBS)
def test_spechub_reaches_the_optimum_of_its_drafts(pair):
  p, q = PAIRS_OF_PROBS[pair]
  best = optimal_acceptance(np.array(p), np.array(q), 2, PAIR)
  assert acceptance("spechub", PAIR, p, q, 2) == pytest.approx(best, abs=1e-12)


def accepted_on_a_chain(name, p, q, length):
  p, q = everywhere(p, 2, 11), everywhere(q, 2, 11)
  found = emitted(VERIFIERS[name], chain(length), WITH, p, q, pad=(11, 10, 1))
  return float(found.tokens[0]) - 1


def test_example_of_the_block_verification_paper():
  """2403.10444: p = (1/3, 2/3), q = (2/3, 1/3), two drafts: 10/9 by token, 11/9 by block."""
  found = [
    accepted_on_a_chain(name, *PAIRS_OF_PROBS["C"], 2) for name in ("chain", "block", "traversal")
  ]
  assert found == pytest.approx([10 / 9, 11 / 9, 11 / 9], abs=1e-12)


def test_table_of_the_speculative_decoding_paper():
  """2211.17192, table 1: tokens a round and arithmetic, for acceptance alpha and gamma drafts."""
  rows = {
    (0.6, 2): (1.96, 1.53),
    (0.7, 3): (2.53, 1.58),
    (0.8, 2): (2.44, 1.23),
    (0.8, 5): (3.69, 1.63),
    (0.9, 2): (2.71, 1.11),
    (0.9, 10): (6.86, 1.60),
  }
  for (alpha, gamma), published in rows.items():
    p, q = [1 - alpha / 2, alpha / 2], [alpha / 2, 1 - alpha / 2]
    tokens = accepted_on_a_chain("chain", p, q, gamma) + 1
    assert tokens == pytest.approx((1 - alpha ** (gamma + 1)) / (1 - alpha), abs=1e-12)
    assert (tokens, (gamma + 1) / tokens) == pytest.approx(published, abs=0.005)
