"""The closed forms of the optimal acceptance against linear programmes and enumeration."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from mtjax.evaluate.exactness import emitted, enumerate_drafts
from mtjax.trees import k_ary
from mtjax.types import DraftScheme
from mtjax.verify import VERIFIERS
from mtjax.verify.optimal import optimal_acceptance
from mtjax.verify.race import Race


def random_pair(rng, vocab):
  p, q = (rng.dirichlet(np.full(vocab, 0.6)) + 1e-4 for _ in "pq")
  return p / p.sum(), q / q.sum()


def by_linear_programme(p, q, n, scheme):
  """Returns the largest mass on (token, drafts with it), marginals p and the drafts' probs."""
  drafts = enumerate_drafts(k_ary((n,)), scheme, np.tile(q, (1, 1, 1)))
  sets: dict[tuple[int, ...], float] = {}
  for weight, token in zip(drafts.weight, drafts.token[:, 1:], strict=True):
    key = tuple(sorted(set(token.tolist())))
    sets[key] = sets.get(key, 0.0) + weight
  edges = [(x, i) for i, drafted in enumerate(sets) for x in drafted]
  rows = np.zeros((len(p) + len(sets), len(edges)))
  for column, (x, i) in enumerate(edges):
    rows[x, column] = rows[len(p) + i, column] = 1
  bound = np.concatenate([p, list(sets.values())])
  return -linprog(-np.ones(len(edges)), A_ub=rows, b_ub=bound, method="highs").fun


@pytest.mark.parametrize("scheme", list(DraftScheme))
def test_equals_the_linear_programme(scheme):
  rng = np.random.default_rng(3)
  for n in [2] if scheme is DraftScheme.PAIR else [1, 2, 3, 4]:
    for vocab in (n + 1, 5, 6):
      p, q = random_pair(rng, vocab)
      best = by_linear_programme(p, q, n, scheme)
      assert optimal_acceptance(p, q, n, scheme) == pytest.approx(best, abs=1e-10), (n, vocab)


def test_draws_that_hold_nearly_all_of_q():
  """Two tokens have all but 1e-9 of q, so that the third draw is far slower than the others."""
  p = np.array([0.2, 0.2, 0.3, 0.3])
  q = np.array([0.6, 0.4 - 1e-9, 8e-10, 2e-10])
  best = by_linear_programme(p, q, 3, DraftScheme.WITHOUT_REPLACEMENT)
  assert optimal_acceptance(p, q, 3, DraftScheme.WITHOUT_REPLACEMENT) == pytest.approx(
    best, abs=1e-7
  )


def test_all_that_q_can_draw_is_drafted():
  p, q = np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.1, 0.0])
  assert optimal_acceptance(p, q, 2, DraftScheme.WITHOUT_REPLACEMENT) == pytest.approx(0.8)
  assert optimal_acceptance(p, q, 3, DraftScheme.WITHOUT_REPLACEMENT) == pytest.approx(0.8)


def test_no_verifier_does_better():
  """More drafts help, drafts without replacement more, and no rule passes the optimum."""
  rng = np.random.default_rng(5)
  pairs = [random_pair(rng, 5) for _ in range(10)]
  p, q = (np.repeat(np.array(x)[:, None], 6, axis=1) for x in zip(*pairs, strict=True))
  best = {}
  for scheme, name in itertools.product(DraftScheme, VERIFIERS):
    verifier, n = VERIFIERS[name], 2
    if scheme in verifier.schemes and verifier.needs_q and not verifier.chains_only:
      found = emitted(verifier, k_ary((n,)), scheme, p, q, pad=(4, 1, 3)).tokens - 1
      best[scheme] = np.array([optimal_acceptance(*pair, n, scheme) for pair in pairs])
      assert (found <= best[scheme] + 1e-12).all(), name
  assert (best[DraftScheme.WITHOUT_REPLACEMENT] >= best[DraftScheme.WITH_REPLACEMENT] - 1e-12).all()


@pytest.mark.parametrize("scheme", [DraftScheme.WITH_REPLACEMENT, DraftScheme.WITHOUT_REPLACEMENT])
def test_a_large_vocabulary(scheme):
  """Both schemes agree nearly there: samples of 128k tokens are hardly ever equal."""
  rng = np.random.default_rng(0)
  p, q = (rng.dirichlet(np.full(128_000, 0.3)) for _ in "pq")
  found = [optimal_acceptance(p, q, n, scheme) for n in (1, 2, 3)]
  assert found[0] == pytest.approx(np.minimum(p, q).sum(), abs=1e-9)
  assert found == sorted(found)
  other = optimal_acceptance(p, q, 3, DraftScheme.WITH_REPLACEMENT)
  assert found[2] == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("sharp", [0.05, 0.5, 5.0])
def test_the_search_finds_the_minimum_over_all_prefixes(sharp):
  rng = np.random.default_rng(4)
  p, q = (rng.dirichlet(np.full(3000, sharp)) for _ in "pq")
  p, q = p[q > 0], q[q > 0]
  ahead = np.argsort(-q / np.maximum(p, 1e-300))
  for n in (3, 6):
    every = Race(q[ahead], n).all_inside(np.arange(q.size))
    best = 1 + (np.cumsum(p[ahead]) - every).min()
    found = optimal_acceptance(p, q, n, DraftScheme.WITHOUT_REPLACEMENT)
    assert found == pytest.approx(best, abs=1e-9)


def test_all_inside_is_convex_in_the_share_of_q():
  """Q is convex along any growing sets, so that the search may skip prefixes; by enumeration."""
  rng = np.random.default_rng(6)
  for n, sharp in itertools.product((2, 3, 4), (0.1, 1.0, 5.0)):
    q = rng.dirichlet(np.full(6, sharp)) + 1e-4
    drafts = enumerate_drafts(k_ary((n,)), DraftScheme.WITHOUT_REPLACEMENT, q[None, None] / q.sum())
    for _ in range(10):
      order = rng.permutation(6)
      place = np.argsort(order)[drafts.token[:, 1:]].max(axis=1)
      inside = np.bincount(place, drafts.weight, minlength=6).cumsum()
      np.testing.assert_allclose(
        Race(q[order] / q.sum(), n).all_inside(np.arange(6)), inside, atol=1e-12
      )
      slopes = np.diff(inside, prepend=0) / q[order]
      assert (np.diff(slopes) >= -1e-12).all()


def test_which_token_is_sampled_at_which_place():
  rng = np.random.default_rng(8)
  for n in (1, 2, 3, 4):
    q = rng.dirichlet(np.full(6, 0.5)) + 1e-4
    drafts = enumerate_drafts(k_ary((n,)), DraftScheme.WITHOUT_REPLACEMENT, q[None, None] / q.sum())
    for j, column in enumerate(drafts.token[:, 1:].T):
      chance = np.bincount(column, drafts.weight, minlength=6)
      np.testing.assert_allclose(Race(q / q.sum(), n).places(np.arange(6))[j], chance, atol=1e-12)


@pytest.mark.ill_typed
@pytest.mark.parametrize(
  ("p", "q", "n", "scheme", "message"),
  [
    ([0.5, 0.5], [1.0], 1, DraftScheme.DELTA, "one vocabulary"),
    ([0.5, 0.5], [0.5, 0.5], 0, DraftScheme.DELTA, "at least one, got 0"),
    ([0.5, 0.5], [0.5, 0.5], 3, DraftScheme.PAIR, "must be two, got 3"),
  ],
)
def test_refusals(p, q, n, scheme, message):
  with pytest.raises(ValueError, match=message):
    optimal_acceptance(np.array(p), np.array(q), n, scheme)
