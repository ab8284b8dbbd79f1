"""Grown trees: every growth that can be sampled, in float64, and the emitted distribution."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.evaluate.exactness import Drafts, emitted_by, target_probs, total_variation
from mtjax.trees.growth import Growth, shares
from mtjax.types import Draft, DraftScheme
from mtjax.verify import VERIFIERS
from tests.verify.conftest import VOCAB

# Order in which a node's children would be sampled: all of its randomness.
ORDERS = np.array(list(itertools.permutations(range(VOCAB))), np.int32)
SIZE, HEIGHT = 4, 4  # one compilation a verifier for all trees


@functools.partial(jax.jit, static_argnames=("size", "step", "height", "children", "add"))
def _grow(q, order, *, size, step, height, children, add):
  """One tree, its probability and its nodes' contexts, as `mtjax.draft.GrownTree` grows them."""
  growth = Growth.plant(jnp.int32(0), size + 1, children, q.dtype)
  context, chance, known = jnp.zeros((size + 1,), jnp.int32), jnp.ones((), q.dtype), 0
  for begin in range(1, size + 1, step):
    for node in range(known, begin):
      sampled = jnp.asarray(ORDERS)[order[node]]
      probs = q[context[node]][sampled]
      share = shares(probs, probs > 0)
      chance *= jnp.prod(share)
      growth = growth.open(node, sampled[None, :children], share[None, :children], height)
    known = begin
    for node in range(begin, min(begin + step, size + 1)):
      growth = add(growth, node)
      below = context[growth.parent[node]] * VOCAB + 1 + growth.token[node]
      context = context.at[node].set(jnp.where(growth.valid[node], below, 0))
  return growth, chance, context


def grown(q, size, step, height, children, add=Growth.add):
  """All trees over all pairs of the table, with their probabilities."""
  reads = 1 + (size - 1) // step * step
  orders = np.array(list(itertools.product(range(len(ORDERS)), repeat=reads)))
  pair = np.repeat(np.arange(len(q)), len(orders))
  settings = dict(size=size, step=step, height=height, children=children, add=add)
  with jax.enable_x64(True):
    each = jax.vmap(functools.partial(_grow, **settings))
    growth, chance, context = each(q[pair], np.tile(orders, (len(q), 1)))
    assert chance.dtype == jnp.float64
  drafts = Drafts(np.asarray(chance), pair, np.asarray(growth.token), np.asarray(context))
  return growth.tree(height), drafts, reads


def judge(verifier, models, tree, drafts, reads):
  """Total variation to the target and expected tokens; NaN is where nobody may look."""

  def padded(values):
    values = np.asarray(values)
    return np.pad(values, ((0, 0), (0, SIZE + 1 - values.shape[1])))

  height = tree.height
  tree = jax.tree.map(lambda x: jnp.asarray(padded(x)), tree).replace(height=HEIGHT, breadth=VOCAB)
  where = drafts.pair[:, None], padded(drafts.context)
  p_rows, q_rows = models.p[where], models.q[where]
  p_rows[~np.asarray(tree.valid)] = np.nan
  q_rows[:, reads:] = np.nan
  with jax.enable_x64(True):
    draft = Draft(tree, DraftScheme.WITHOUT_REPLACEMENT, jnp.asarray(q_rows))
  found = emitted_by(VERIFIERS[verifier], drafts, draft, p_rows, models.p, height)
  return total_variation(found.probs, target_probs(models.p, height + 1)), found.tokens


def check(verifier, models, growing, max_depth=HEIGHT):
  tree, drafts, reads = grown(models.q, *growing)
  np.testing.assert_allclose(np.bincount(drafts.pair, drafts.weight), 1, rtol=1e-12)
  tree = tree.replace(valid=tree.valid & (tree.depth <= max_depth))
  return judge(verifier, models, tree, drafts, reads)


# (drafts, drafts a pass, height, children): the paper's form; several drafts a pass, with limits.
GROWING = [(3, 1, 3, 3), (4, 2, 2, 2)]


@pytest.mark.parametrize("growing", GROWING)
@pytest.mark.parametrize("verifier", ["rrs_without", "traversal"])
def test_emitted_distribution_is_the_targets(verifier, growing, models):
  assert check(verifier, models, growing)[0].max() <= 1e-12


@pytest.mark.parametrize("verifier", ["rrs_without", "traversal"])
def test_leaving_out_what_is_too_deep_keeps_the_distribution(verifier, models):
  """Does as the loop near a row's limit: all children of a node or none, whatever was sampled."""
  assert check(verifier, models, (4, 2, 2, 2), max_depth=1)[0].max() <= 1e-12


# Means over the first eight pairs of models; from a separate enumeration, recursive, with a heap.
@pytest.mark.parametrize(("size", "tokens"), [(2, 2.0439), (3, 2.4041), (4, 2.6991)])
def test_expected_tokens_of_a_round(size, tokens, models):
  first = type(models)(p=models.p[:8], q=models.q[:8])
  off, found = check("rrs_without", first, (size, 1, size, 3))
  assert off.max() <= 1e-12
  assert found.mean() == pytest.approx(tokens, abs=6e-5)


def peeking(growth, node):
  """Grows where the next child, not added yet, has the largest share."""
  seen = growth.value * growth.share[jnp.arange(growth.value.shape[0]), growth.children]
  best = jnp.arange(growth.value.shape[0]) == jnp.argmax(seen)
  new = growth.replace(value=jnp.where(best, growth.value, 0)).add(node)
  return new.replace(value=jnp.where(best, new.value, growth.value))


def test_growth_that_looks_at_a_draw_before_it_is_added_is_caught(models):
  assert check("rrs_without", models, (3, 1, 3, 3, peeking))[0].mean() > 0.005


def test_a_dropped_draft_is_caught(models):
  """Leaves out the less probable of two sampled siblings."""
  tree, drafts, reads = grown(models.q, 2, 1, 2, 3)
  q = np.take_along_axis(models.q[drafts.pair, 0], drafts.token[:, 1:], axis=1)
  alone = np.asarray(tree.parent[:, 2] == 1)[:, None]
  best = np.column_stack([q[:, 0] >= q[:, 1], q[:, 0] < q[:, 1]])
  keep = np.pad(alone | best, ((0, 0), (1, 0)), constant_values=True)
  dropped = tree.replace(valid=tree.valid & jnp.asarray(keep))
  assert judge("rrs_without", models, tree, drafts, reads)[0].max() <= 1e-12
  assert judge("rrs_without", models, dropped, drafts, reads)[0].mean() > 0.05


def test_where_the_next_draft_goes():
  """By hand: after a of share 0.6, its child (0.6) comes before its sibling (0.4), and so on."""

  @jax.jit
  def first():
    growth = Growth.plant(jnp.int32(9), 5, 2)
    return growth.open(0, jnp.array([[7, 8]]), jnp.array([[0.6, 0.5]]), 3).add(1)

  @jax.jit
  def others(growth):
    growth = growth.open(1, jnp.array([[5, 6]]), jnp.array([[0.25, 0.5]]), 3).add(2)
    growth = growth.add(3)  # 0.6 * 0.75 is more than 0.4
    growth = growth.add(4)  # two children are all that node 1 may have
    return growth, growth.tree(3)

  growth = first()
  value, reach = np.asarray(growth.value), np.asarray(growth.reach)
  assert value[0] == pytest.approx(0.4) and reach[1] == pytest.approx(0.6)
  growth, tree = others(growth)
  assert tree.token.tolist() == [9, 7, 5, 6, 8] and tree.parent.tolist() == [-1, 0, 1, 1, 0]
  assert tree.order.tolist() == [0, 0, 0, 1, 1] and tree.depth.tolist() == [0, 1, 2, 2, 1]
  assert np.asarray(tree.valid).all() and not np.asarray(growth.value).any()


def test_a_q_that_runs_out_leaves_nodes_missing():
  @jax.jit
  def grow(q):
    share = shares(q, q > 0)
    growth = Growth.plant(jnp.int32(0), 3, 2).open(0, jnp.array([[4, 0]]), share, 2)
    return share, growth.add(1).add(2)

  share, growth = grow(jnp.array([[1.0, 0.0]]))
  assert share.tolist() == [[1, 0]]
  assert growth.valid.tolist() == [True, True, False] and not np.isnan(growth.value).any()
