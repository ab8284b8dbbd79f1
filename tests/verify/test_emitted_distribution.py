"""The emitted distribution of every verifier, over all drafts and all coins, in float64."""

import numpy as np
import pytest

from mtjax.evaluate.exactness import emitted, random_probs, target_probs, total_variation
from mtjax.trees import chain, encodings, k_ary
from mtjax.types import DraftScheme, Exactness
from mtjax.verify import VERIFIERS, Verifier
from mtjax.verify.rules.threshold import threshold
from mtjax.verify.walk import walk

SIZE, HEIGHT, BREADTH = 7, 3, 3  # one compilation per verifier and scheme for all trees


def enumerate_texts(name, tree, scheme, models):
  verifier = VERIFIERS[name]
  breadth = 1 if verifier.chains_only else BREADTH
  return emitted(verifier, tree, scheme, models.p, models.q, pad=(SIZE, HEIGHT, breadth))


def allowed(name, scheme, tree):
  return not (VERIFIERS[name].chains_only and tree.breadth > 1) and not (
    scheme is DraftScheme.PAIR and tree.breadth > 2
  )


def declared(exactness):
  return [
    pytest.param(name, scheme, id=f"{name}-{scheme.value}")
    for name, verifier in VERIFIERS.items()
    if verifier.exactness is exactness
    for scheme in sorted(verifier.schemes, key=lambda scheme: scheme.value)
  ]


@pytest.mark.parametrize(("name", "scheme"), declared(Exactness.LOSSLESS))
def test_emitted_distribution_is_the_targets(name, scheme, models, trees):
  for shape, tree in trees.items():
    if allowed(name, scheme, tree):
      found = enumerate_texts(name, tree, scheme, models)
      off = total_variation(found.probs, target_probs(models.p, tree.height + 1)).max()
      assert off <= 1e-12, f"{name} is not exact for {scheme.value} drafts on the {shape} tree"


@pytest.mark.parametrize(
  ("name", "scheme"), declared(Exactness.LOSSLESS) + declared(Exactness.GREEDY_LOSSLESS)
)
def test_greedy_rows_get_the_greedy_text(name, scheme, models, trees):
  """process() makes greedy rows one-hot, so every lossless verifier is exact for them too."""
  tree = trees["chain" if VERIFIERS[name].chains_only else "binary"]
  best = np.eye(3)[models.p.argmax(axis=-1)]
  breadth = 1 if VERIFIERS[name].chains_only else BREADTH
  found = emitted(VERIFIERS[name], tree, scheme, best, models.q, pad=(SIZE, HEIGHT, breadth))
  assert total_variation(found.probs, target_probs(best, tree.height + 1)).max() <= 1e-12


@pytest.mark.parametrize(("name", "scheme"), declared(Exactness.APPROXIMATE))
def test_approximate_verifiers_change_the_distribution(name, scheme, models, trees):
  """Otherwise their label, or this enumeration, would be wrong."""
  tree = trees["binary"]
  found = enumerate_texts(name, tree, scheme, models)
  assert abs(found.probs.sum(axis=1) - 1).max() < 1e-12
  assert total_variation(found.probs, target_probs(models.p, tree.height + 1)).mean() > 0.05


def test_thresholds_of_one_are_exact(models, trees):
  exact = Verifier(walk(threshold(1.0, 1.0)), Exactness.LOSSLESS, frozenset(DraftScheme), "", False)
  for scheme in (DraftScheme.DELTA, DraftScheme.WITH_REPLACEMENT):
    found = emitted(exact, trees["wide"], scheme, models.p, models.q, pad=(SIZE, HEIGHT, BREADTH))
    assert total_variation(found.probs, target_probs(models.p, 3)).max() <= 1e-12


# Expected tokens a round, means over the twenty pairs. From a separate enumeration in plain numpy,
# recursive over trees, of rules written from the papers.
TOKENS = {
  "chain": {
    "rrs_with": 2.76051,
    "rrs_without": 2.76051,
    "chain": 2.76051,
    "traversal": 2.85690,
    "block": 2.85690,
    "delta": 2.12863,
    "sample_match": 1.73911,
  },
  "binary": {
    "rrs_with": 2.63074,
    "rrs_without": 2.79942,
    "traversal": 2.81946,
    "delta": 2.65636,
    "sample_match": 2.41559,
  },
  "uneven": {
    "rrs_with": 2.61966,
    "rrs_without": 2.77596,
    "traversal": 2.79744,
    "delta": 2.60496,
    "sample_match": 2.30260,
  },
  "wide": {
    "rrs_with": 2.59771,
    "rrs_without": 2.72547,
    "traversal": 2.76259,
    "delta": 2.47791,
    "sample_match": 2.36327,
  },
}
DRAWN = {"rrs_with": DraftScheme.WITH_REPLACEMENT, "delta": DraftScheme.DELTA}


@pytest.mark.parametrize("shape", TOKENS)
def test_expected_tokens_of_a_round(shape, models, trees):
  for name, tokens in TOKENS[shape].items():
    scheme = DRAWN.get(name, DraftScheme.WITHOUT_REPLACEMENT)
    found = enumerate_texts(name, trees[shape], scheme, models)
    assert found.tokens.mean() == pytest.approx(tokens, abs=6e-6), name


def test_verifiers_that_are_the_same_for_some_drafts(models, trees):
  """Block is traversal on a chain; deterministic drafts have one acceptance; SpecHub is Hu's."""

  def tokens(name, shape, scheme):
    return enumerate_texts(name, trees[shape], scheme, models).tokens

  for scheme in (DraftScheme.WITHOUT_REPLACEMENT, DraftScheme.WITH_REPLACEMENT):
    np.testing.assert_allclose(
      tokens("block", "chain", scheme), tokens("traversal", "chain", scheme), rtol=1e-12
    )
  for scheme in DraftScheme:
    np.testing.assert_allclose(
      tokens("delta", "binary", scheme), tokens("sample_match", "binary", scheme), rtol=1e-12
    )
  np.testing.assert_allclose(
    tokens("spechub", "binary", DraftScheme.PAIR),
    tokens("greedy_plus_one", "binary", DraftScheme.GREEDY_PLUS_ONE),
    rtol=1e-12,
  )


def test_traversal_accepts_most(models, trees):
  for scheme, name in (
    (DraftScheme.WITH_REPLACEMENT, "rrs_with"),
    (DraftScheme.WITHOUT_REPLACEMENT, "rrs_without"),
  ):
    for tree in trees.values():
      more = enumerate_texts("traversal", tree, scheme, models).tokens
      assert (more >= enumerate_texts(name, tree, scheme, models).tokens - 1e-12).all()


@pytest.mark.parametrize(
  ("name", "scheme"), declared(Exactness.LOSSLESS) + declared(Exactness.APPROXIMATE)
)
def test_four_tokens_with_zeros_in_both_p_and_q(name, scheme):
  """V = 4; some tokens have p = 0, some q = 0, so that draws without replacement run out."""
  rng = np.random.default_rng(7)
  p, q = (random_probs(rng, 6, 4, 4) * (rng.random((6, 85, 4)) < 0.7) for _ in "pq")
  p[..., 0] += 0.1
  q[..., 1] += 0.1
  p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
  for tree in (chain(3), k_ary((2, 2)), encodings.from_parents([-1, 0, 0, 0, 1, 2])):
    if allowed(name, scheme, tree):
      breadth = 1 if VERIFIERS[name].chains_only else BREADTH
      found = emitted(VERIFIERS[name], tree, scheme, p, q, pad=(SIZE, HEIGHT, breadth))
      off = total_variation(found.probs, target_probs(p, tree.height + 1)).max()
      assert abs(found.probs.sum(axis=1) - 1).max() < 1e-12
      assert VERIFIERS[name].exactness is Exactness.APPROXIMATE or off <= 1e-12
