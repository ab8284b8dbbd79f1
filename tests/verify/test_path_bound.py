"""The bound of whole paths: over all drafts and coins, no lossless verifier passes it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from mtjax.evaluate.exactness import (
  Drafts,
  emitted,
  emitted_by,
  enumerate_drafts,
  first,
  target_probs,
)
from mtjax.trees import chain, encodings
from mtjax.types import Draft, DraftScheme, Exactness
from mtjax.verify import VERIFIERS
from mtjax.verify.path_bound import Paths, Sampled, exact_bounds, inclusion, optimum, path_bounds
from tests.trees.test_growth import grown

PAIRS, PAD = 2, (7, 3, 3)
SHAPES = {
  "chain": chain(3),
  "of two sizes": encodings.from_parents([-1, 0, 0, 1, 3]),
  "wide": encodings.from_parents([-1, 0, 0, 0, 1, 2]),
}
# Of three tokens the first is grown below as soon as it is sampled, the others get a sibling.
UNEQUAL_P, UNEQUAL_Q = np.array([0.9, 0.05, 0.05]), np.array([0.6, 0.2, 0.2])


def rows_of(drafts, parent, p, q):
  """Weight, pair, distinct paths and q of every draft, as an audit sees it."""
  for weight, pair, token, context in zip(*drafts, strict=True):
    chance = p[pair, context[parent], token]
    paths = Paths.of_tree(token, parent, np.ones(token.size, bool), chance)
    yield weight, pair, paths, q[pair, context]


def bounds_of(shape, scheme, p, q):
  """The mean of the estimates over all drafts, the best of every depth: [pairs, depth]."""
  parent, sampled = np.array(shape.parent), Sampled(scheme, shape.breadth, shape)
  out = [0] * len(p)
  for weight, pair, paths, tables in rows_of(enumerate_drafts(shape, scheme, q), parent, p, q):
    if scheme is DraftScheme.DELTA:
      found = exact_bounds(paths, shape.height)
    else:
      root = p[pair, 0], tables, int(np.sum(parent == 0))
      found = path_bounds(paths, shape.height, sampled, *root)
    out[pair] = out[pair] + weight * found
  return np.minimum.accumulate(np.array(out).min(axis=2), axis=1)


def exceeded(accepted, bound):
  return (accepted > bound + 1e-9).any()


@pytest.mark.parametrize("scheme", list(DraftScheme))
def test_no_verifier_passes_it(scheme, models):
  p, q = models.p[:PAIRS], models.q[:PAIRS]
  for name, shape in SHAPES.items():
    if scheme is DraftScheme.PAIR and shape.breadth > 2:
      continue
    bound = bounds_of(shape, scheme, p, q)
    assert (bound <= 1 + 1e-9).all()
    for verifier, it in VERIFIERS.items():
      allowed = scheme in it.schemes and not (it.chains_only and shape.breadth > 1)
      if allowed and it.exactness is Exactness.LOSSLESS:
        breadth = 1 if it.chains_only else PAD[2]
        found = emitted(it, shape, scheme, p, q, pad=(*PAD[:2], breadth)).accepted
        assert not exceeded(found, bound), (verifier, name)


def test_the_optimum_of_single_nodes_is_passed_by_rules_for_whole_paths(models):
  """`chain` accepts that optimum node by node; it is wrong as a bound of whole paths."""
  scheme, pad = DraftScheme.WITHOUT_REPLACEMENT, (*PAD[:2], 1)
  accepted = {
    name: emitted(VERIFIERS[name], chain(3), scheme, models.p, models.q, pad=pad).accepted
    for name in ("chain", "block", "traversal")
  }
  node_wise = np.minimum(models.p[:, 0], models.q[:, 0]).sum(axis=1)
  np.testing.assert_allclose(accepted["chain"][:, 0], node_wise, rtol=1e-12)
  for name in ("block", "traversal"):
    assert not exceeded(accepted[name][:, :1], accepted["chain"][:, :1])
    assert exceeded(accepted[name], accepted["chain"])
    assert VERIFIERS[name].whole_paths
  assert not VERIFIERS["chain"].whole_paths


def test_on_a_chain_one_coupling_reaches_it_at_all_depths(models):
  """The linear programme over pairs of a text and a chain, for the number of accepted drafts."""
  vocab, length = 3, 3
  p, q = models.p[:1], models.q[:1]
  tables = [target_probs(x, length)[0] for x in (p, q)]
  texts = list(itertools.product(range(vocab), repeat=length))
  same = np.array([[[y[:d] == x[:d] for x in texts] for y in texts] for d in (1, 2, 3)])
  eye = np.eye(len(texts))
  rows = np.concatenate([np.kron(eye, np.ones(len(texts))), np.kron(np.ones(len(texts)), eye)])
  best = linprog(-same.sum(axis=0).ravel(), A_eq=rows, b_eq=np.concatenate(tables), method="highs")
  reached = (same.reshape(3, -1) @ best.x).tolist()
  bound = bounds_of(chain(length), DraftScheme.WITH_REPLACEMENT, p, q)[0]
  assert -best.fun == pytest.approx(bound.sum(), abs=1e-9)
  assert reached == pytest.approx(bound.tolist(), abs=1e-9)


@pytest.mark.parametrize(
  "scheme", [scheme for scheme in DraftScheme if scheme is not DraftScheme.DELTA]
)
def test_a_path_is_drafted_as_often_as_is_said(scheme, models):
  p, q = models.p[:PAIRS], models.q[:PAIRS]
  for shape in (SHAPES["of two sizes"], SHAPES["wide"]):
    if scheme is DraftScheme.PAIR and shape.breadth > 2:
      continue
    parent, sampled = np.array(shape.parent), Sampled(scheme, shape.breadth, shape)
    weights, said = {}, {}
    for weight, pair, paths, tables in rows_of(enumerate_drafts(shape, scheme, q), parent, p, q):
      text = [(pair,)]
      for i, chance in enumerate(inclusion(paths, sampled, tables), 1):
        text.append((*text[paths.parent[i]], paths.token[i]))
        weights[text[i]] = weights.get(text[i], 0) + weight
        said[text[i]] = chance
    assert said == pytest.approx(weights, abs=1e-12)


def test_a_tree_that_grows_with_its_samples(models):
  """Old figure: the optimum of as many children as there are; here a rule for nodes passes it."""
  contexts, height = first(3, 3), 2
  p, q = (np.tile(x, (1, contexts, 1)) for x in (UNEQUAL_P, UNEQUAL_Q))
  tree, drafts, _ = grown(q, 2, 1, height, 3)
  sampled = Sampled(DraftScheme.WITHOUT_REPLACEMENT, 3, None)
  bound, old = 0, 0
  rows = zip(np.asarray(tree.token), np.asarray(tree.parent), drafts.weight, strict=True)
  for token, parent, weight in rows:
    paths = Paths.of_tree(token, parent, np.ones(3, bool), UNEQUAL_P[token])
    count = int(np.sum(parent == 0))
    bound += weight * path_bounds(paths, height, sampled, UNEQUAL_P, q[0], count)
    fixed = sampled._replace(shape=chain(1))
    old += weight * optimum(UNEQUAL_P, UNEQUAL_Q, fixed, count)
  bound = np.minimum.accumulate(bound.min(axis=1))
  accepted = _of_grown("rrs_without", tree, drafts, p, q, height)
  assert accepted[0] == pytest.approx(0.925)  # by hand: 0.6 + 0.4 (0.25 + 0.75 * 0.75)
  assert exceeded(accepted[0], old) and not exceeded(accepted, bound)
  assert not exceeded(_of_grown("traversal", tree, drafts, p, q, height), bound)


def _of_grown(verifier, tree, drafts: Drafts, p, q, height):
  rows = drafts.pair[:, None], drafts.context
  with jax.enable_x64(True):
    draft = Draft(tree, DraftScheme.WITHOUT_REPLACEMENT, jnp.asarray(q[rows]))
  return emitted_by(VERIFIERS[verifier], drafts, draft, p[rows], p, height).accepted[0]
