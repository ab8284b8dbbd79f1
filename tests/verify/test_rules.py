"""Corners of the rules: zeros, ties, missing children, order, float32, and the two ways to walk."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.trees import chain, encodings, k_ary
from mtjax.types import Draft, DraftScheme, TokenTree
from mtjax.verify import VERIFIERS, verify
from mtjax.verify.plan import first_to_stop
from mtjax.verify.rules.chain import chain as at_once
from mtjax.verify.rules.chain import rejection
from mtjax.verify.rules.delta import delta
from mtjax.verify.rules.greedy_plus_one import greedy_plus_one
from mtjax.verify.rules.kseq import division, kseq
from mtjax.verify.rules.rrs import with_replacement, without_replacement
from mtjax.verify.rules.spechub import spechub
from mtjax.verify.rules.threshold import threshold
from mtjax.verify.rules.typical import typical
from mtjax.verify.walk import walk

RULES = {
  "with": with_replacement,
  "without": without_replacement,
  "delta": delta,
  "kseq": kseq,
  "spechub": spechub,
  "greedy_plus_one": greedy_plus_one,
  "threshold": threshold(0.5, 0.9),
}
COMPILED = {name: jax.jit(rule) for name, rule in RULES.items()}
P = jnp.array([0.1, 0.5, 0.0, 0.4])
Q = jnp.array([0.3, 0.3, 0.4, 0.0])


def column(values, rows=1):
  return jnp.tile(jnp.asarray(values, jnp.int32), (rows, 1))


def tree_of(topology, token, valid=None):
  """[1, N] arrays of a static tree."""
  return TokenTree(
    token=column(token),
    parent=column(topology.parent),
    depth=column(topology.depth),
    order=column(topology.order),
    valid=jnp.asarray([valid or [True] * topology.size]),
    height=topology.height,
    breadth=topology.breadth,
  )


@pytest.mark.parametrize("name", RULES)
def test_without_children_the_residual_is_p(name):
  """Whatever q and the missing tokens hold."""
  nothing = jnp.full((4,), jnp.nan)
  found = COMPILED[name](P, nothing, jnp.array([10**6, -7]), jnp.array([False, False]))
  np.testing.assert_array_equal(found.accept, [0, 0])
  np.testing.assert_allclose(found.residual, P, rtol=1e-6)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("p", [[0.1, 0.5, 0.0, 0.4], [0.3, 0.3, 0.4, 0.0], [0.0, 0.0, 0.0, 1.0]])
def test_decisions_are_probabilities_in_float32(name, p):
  """p = q and one-hot p included; what p removed is neither taken nor emitted."""
  p = jnp.array(p)
  for pair in ((0, 1), (1, 2), (2, 0), (2, 2), (2, 3), (3, 3)):
    for valid in ((True, True), (True, False)):
      found = COMPILED[name](p, Q, jnp.array(pair), jnp.array(valid))
      values = np.concatenate([found.accept, found.residual])
      assert np.isfinite(values).all() and (values >= 0).all(), (pair, values)
      assert found.accept.sum() <= 1 + 1e-6 and abs(found.residual.sum() - 1) < 1e-6
      gone = np.asarray(p) == 0
      assert (np.asarray(found.residual)[gone] == 0).all()
      assert (np.asarray(found.accept)[gone[np.array(pair)]] == 0).all()


def test_filling_after_q_ran_out_is_passed_over():
  """q has one token; the second child is whatever top_k returned after it."""
  q = jnp.array([1.0, 0.0, 0.0, 0.0])
  both = COMPILED["without"](P, q, jnp.array([0, 1]), jnp.array([True, True]))
  one = COMPILED["without"](P, q, jnp.array([0, 1]), jnp.array([True, False]))
  np.testing.assert_array_equal(both.accept, one.accept)
  np.testing.assert_array_equal(both.residual, one.residual)
  assert both.accept[1] == 0


def test_division_is_the_papers_optimum():
  """Solves 1 - (1 - beta)^n = rho beta; known to six digits from a root finder."""
  p, q = jnp.array([0.5, 0.25, 0.15, 0.1]), jnp.array([0.1, 0.2, 0.3, 0.4])
  assert float(division(p, q, jnp.float32(2))) == pytest.approx(1.584429, abs=1e-5)
  assert float(division(p, q, jnp.float32(3))) == pytest.approx(2.100031, abs=1e-5)
  assert float(division(p, q, jnp.float32(1))) == 1


@pytest.mark.parametrize(
  "topology",
  [chain(3), k_ary((2, 2)), encodings.from_parents([-1, 0, 0, 0, 1, 2, 2])],
  ids=["chain", "binary", "ragged"],
)
def test_first_to_stop_is_the_first_in_post_order(topology):
  """Against a recursive walk, for every pattern of stops; missing nodes never stop."""
  patterns = np.array(list(itertools.product([False, True], repeat=topology.size)))
  for valid in ([True] * topology.size, [True] * (topology.size - 1) + [False]):
    tree = jax.tree.map(lambda x: x[0], tree_of(topology, [0] * topology.size, valid))
    path, count = jax.jit(jax.vmap(first_to_stop, (None, 0)))(tree, patterns)

    def post_order(node, valid=valid):
      for child, parent in enumerate(topology.parent):
        if parent == node and valid[child]:
          yield from post_order(child)
      yield node

    for stops, nodes, length in zip(patterns, np.asarray(path), np.asarray(count), strict=True):
      end = next(node for node in post_order(0) if stops[node] or node == 0)
      expected = []
      while end >= 0:
        expected.insert(0, end)
        end = topology.parent[end]
      assert nodes[:length].tolist() == expected


def test_typical_acceptance_takes_the_longest_likely_path():
  """p(x) > min(0.09, 0.3 exp(-H)); of equally long paths the likelier one."""
  topology = k_ary((2, 2))
  tree = tree_of(topology, [0, 1, 2, 0, 1, 2, 3])
  p = np.full((7, 4), 0.25)
  p[0] = [0.05, 0.3, 0.6, 0.05]
  p[1] = [0.9, 0.02, 0.04, 0.04]
  p[2] = [0.1, 0.1, 0.75, 0.05]

  def accepted_path(p):
    keys = jax.random.split(jax.random.key(0), 1)
    logits = jnp.log(jnp.asarray(p, jnp.float32))[None]
    verdict = verify(
      "typical", logits, Draft(tree, DraftScheme.DELTA), keys, jnp.zeros(1, jnp.int32)
    )
    return verdict.path[0, : int(verdict.count[0])].tolist()

  assert accepted_path(p) == [0, 2, 5]  # 0.6 * 0.75 against 0.3 * 0.9
  p[2] = [0.5, 0.44, 0.03, 0.03]
  assert accepted_path(p) == [0, 1, 3]  # the deeper one, although 0.6 > 0.3
  p[0] = [0.998, 0.001, 0.0005, 0.0005]
  assert accepted_path(p) == [0]


def test_typical_thresholds_are_the_right_way_round():
  """Medusa's helper has its two defaults swapped; with these a token of 0.1 is likely enough."""
  topology = chain(1)
  draft = Draft(jax.tree.map(lambda x: x[0], tree_of(topology, [0, 0])), DraftScheme.DELTA)
  p = jnp.array([0.1, 0.9, 0.0])
  assert typical()(lambda node: p, draft).stop[1] == 1
  assert typical(epsilon=0.3, delta=0.09)(lambda node: p, draft).stop[1] == 1
  sharp = jnp.array([0.08, 0.92, 0.0])
  assert typical()(lambda node: sharp, draft).stop[1] == 0


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_row_without_drafts_gets_a_plain_draw(name):
  """Missing nodes may hold NaN and nonsense; the emitted token has a positive probability."""
  rows, topology = 256, chain(2)
  scheme = next(iter(VERIFIERS[name].schemes - {DraftScheme.PAIR}), DraftScheme.PAIR)
  logits = jnp.full((rows, 3, 4), jnp.nan)
  logits = logits.at[:, 0].set(jnp.log(jnp.array([0.5, 0.0, 0.5, 0.0])))
  tree = TokenTree(
    token=column([3, 10**6, -5], rows),
    parent=column(topology.parent, rows),
    depth=column(topology.depth, rows),
    order=column(topology.order, rows),
    valid=jnp.tile(jnp.array([True, False, False]), (rows, 1)),
    height=2,
    breadth=1,
  )
  draft = Draft(tree, scheme, jnp.full(logits.shape, jnp.nan))
  keys = jax.random.split(jax.random.key(4), rows)
  verdict = verify(name, logits, draft, keys, jnp.zeros(rows, jnp.int32))
  assert (verdict.count == 1).all() and (verdict.path[:, 0] == 0).all()
  expected = {0} if name == "greedy" else {0, 2}
  assert set(np.asarray(verdict.token).tolist()) == expected


@pytest.mark.parametrize("name", ["rrs_without", "traversal", "delta", "kseq"])
def test_a_perfect_draft_is_kept_whole(name):
  """p = q, where every residual is 0/0: nothing is refused, and the last token is finite."""
  if name == "delta":
    p = jnp.tile(jax.nn.one_hot(1, 4), (64, 3, 1))
  else:
    p = jax.nn.softmax(jax.random.normal(jax.random.key(1), (64, 3, 4)))
  logits = jnp.log(p)
  token = jnp.argmax(jax.random.gumbel(jax.random.key(2), logits.shape) + logits, axis=-1)
  tree = TokenTree(
    token=jnp.pad(token[:, :2], ((0, 0), (1, 0))).astype(jnp.int32),
    parent=column([-1, 0, 1], 64),
    depth=column([0, 1, 2], 64),
    order=column([0, 0, 0], 64),
    valid=jnp.ones((64, 3), bool),
    height=2,
    breadth=1,
  )
  scheme = DraftScheme.DELTA if name == "delta" else DraftScheme.WITH_REPLACEMENT
  keys = jax.random.split(jax.random.key(3), 64)
  draft = Draft(tree, scheme, jax.nn.softmax(logits))
  verdict = verify(name, logits, draft, keys, jnp.zeros(64, jnp.int32))
  assert (verdict.count == 3).all()
  assert ((verdict.token >= 0) & (verdict.token < 4)).all()


def test_verify_runs_inside_a_compiled_step():
  """Refusals need static facts only, so a decoder can jit around it."""
  tree = tree_of(chain(2), [0, 1, 1])

  @jax.jit
  def step(logits, keys):
    return verify(
      "delta", logits, Draft(tree, DraftScheme.DELTA), keys, jnp.zeros(1, jnp.int32)
    ).count

  logits = jnp.where(jnp.arange(4) == 1, 0.0, -jnp.inf) * jnp.ones((1, 3, 1))
  assert step(logits, jax.random.split(jax.random.key(0), 1)).tolist() == [3]


@pytest.mark.parametrize("name", ["greedy", "rrs_with", "block", "traversal", "typical"])
def test_a_tree_may_be_its_root_alone(name):
  tree = tree_of(chain(0), [0])
  scheme = next(iter(VERIFIERS[name].schemes - {DraftScheme.PAIR}))
  logits = jnp.log(jax.nn.one_hot(2, 4))[None, None]
  keys = jax.random.split(jax.random.key(0), 1)
  draft = Draft(tree, scheme, jnp.full_like(logits, jnp.nan))
  verdict = verify(name, logits, draft, keys, jnp.zeros(1, jnp.int32))
  assert (int(verdict.count[0]), int(verdict.token[0])) == (1, 2)


def test_a_chain_at_once_is_the_walk_to_the_bit():
  """The proof for the one, whose outcomes are enumerated, holds for the other."""
  rng = np.random.default_rng(0)
  rows, nodes, vocab = 300, 5, 7
  length = rng.integers(1, nodes + 1, rows)
  token = jnp.asarray(rng.integers(0, vocab, (rows, nodes)), jnp.int32)
  tree = chain(nodes - 1).tree(token, jnp.asarray(np.arange(nodes) < length[:, None]))
  logits = rng.normal(size=(rows, nodes, vocab))
  logits[rng.random(logits.shape) < 0.1] = -np.inf
  q = jax.nn.softmax(jnp.asarray(rng.normal(size=logits.shape), jnp.float32), axis=-1)
  draft = Draft(tree, DraftScheme.WITH_REPLACEMENT, q)
  given = jnp.asarray(logits, jnp.float32), draft, jax.random.split(jax.random.key(0), rows)

  def decide(procedure, step):
    return jax.jit(jax.vmap(procedure.decide))(*given, step)

  step = jnp.arange(rows)
  found, wanted = decide(at_once(), step), decide(walk(rejection), step)
  np.testing.assert_array_equal(found.count, wanted.count)
  np.testing.assert_array_equal(found.token, wanted.token)
  on_path = np.arange(nodes) < np.asarray(found.count)[:, None]
  np.testing.assert_array_equal(np.asarray(found.path)[on_path], np.asarray(wanted.path)[on_path])
  assert set(np.asarray(found.count)) == set(range(1, nodes + 1))
  others = decide(at_once(), step + 1)
  assert (others.count != wanted.count).any(), "other coins, and nothing differs"
