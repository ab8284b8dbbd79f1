"""The best paths of a table of probs, against a heap; equal scores; no node without parent."""

import functools
import heapq

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtjax.trees.best_first import Candidates

VOCAB, HEIGHT, WIDTH = 4, 3, 2
CONTEXTS = 1 + VOCAB + VOCAB**2


def search(logp, *, width, size):
  """`_search`, with scores and entries as arrays of numpy's."""
  tree, *rest = _search(logp, width=width, size=size)
  return tree, *map(np.asarray, rest)


@functools.partial(jax.jit, static_argnames=("width", "size"))
def _search(logp, *, width, size):
  """The tree of a table of log-probabilities [contexts, V]; c V + 1 + x is x after context c."""
  found = Candidates.none(1, HEIGHT, width)
  context = jnp.zeros((1, 1), jnp.int32)
  for depth in range(HEIGHT):
    found = found.add(depth, logp[context])
    if depth + 1 < HEIGHT:
      token, place, _ = found.entries(depth)
      context = jnp.take_along_axis(context, place, axis=1) * VOCAB + 1 + token
  score, number = found.best(size)
  tree, number = found.tree(jnp.array([9]), score, number)
  return tree, score, found.entry_of(number, jnp.int32(2))


def paths(tree):
  """Each draft's tokens from the root down; parents are known by then."""
  valid, parents, token = (np.asarray(x)[0] for x in (tree.valid, tree.parent, tree.token))
  out = {0: ()}
  for node in np.flatnonzero(valid)[1:]:
    parent = int(parents[node])
    assert parent in out, "a parent is missing, or stands behind its child"
    out[int(node)] = (*out[parent], int(token[node]))
  return [out[node] for node in sorted(out)][1:]


def with_heap(logp, width, size):
  """EAGLE-2 in plain Python: a beam a level, then the best candidate whose parent was taken."""
  candidates, beam, number = {}, [((), 0.0, 0)], 0
  for _ in range(HEIGHT):
    level = []
    for path, score, context in beam:
      best = sorted(range(VOCAB), key=lambda x, c=context: (-logp[c, x], x))[:width]
      level += [((*path, x), score + logp[context, x], context * VOCAB + 1 + x) for x in best]
    for path, score, _ in level:
      candidates.setdefault(path[:-1], []).append((-score, number, path))
      number += 1
    beam = sorted(level, key=lambda one: -one[1])[:width]
  heap, kept = list(candidates[()]), []
  heapq.heapify(heap)
  while heap and len(kept) < size:
    _, number, path = heapq.heappop(heap)
    kept.append((number, path))
    for child in candidates.get(path, []):
      heapq.heappush(heap, child)
  return [path for _, path in sorted(kept)]


def whole_heap(logp, size):
  """The best `size` paths of all there are, without a beam."""
  heap, kept = [(-logp[0, x], (x,), 1 + x) for x in range(VOCAB)], []
  heapq.heapify(heap)
  while len(kept) < size:
    score, path, context = heapq.heappop(heap)
    kept.append(path)
    if len(path) < HEIGHT:
      for x in range(VOCAB):
        heapq.heappush(heap, (score - logp[context, x], (*path, x), context * VOCAB + 1 + x))
  return kept


def random_table(rng):
  return np.log(rng.dirichlet(np.full(VOCAB, 0.7), CONTEXTS) + 1e-6).astype(np.float32)


def test_trees_are_those_of_a_heap():
  rng = np.random.default_rng(0)
  for _ in range(50):
    logp = random_table(rng)
    assert paths(search(logp, width=WIDTH, size=6)[0]) == with_heap(logp, WIDTH, 6)


def test_exact_ties_go_to_the_earlier_candidate():
  """Whole numbers, so that sums are equal; 0 makes a child as good as its parent."""
  rng = np.random.default_rng(1)
  shapes = set()
  for _ in range(50):
    logp = -rng.integers(0, 3, (CONTEXTS, VOCAB)).astype(np.float32)
    found = paths(search(logp, width=WIDTH, size=6)[0])
    assert found == with_heap(logp, WIDTH, 6)
    shapes.add(tuple(map(len, found)))
  assert len(shapes) > 2, "all trees have one shape: this tests little"


def test_a_beam_as_wide_as_the_tree_is_large_loses_nothing():
  rng = np.random.default_rng(2)
  for _ in range(20):
    logp = random_table(rng)
    tree, score, _ = search(logp, width=4, size=4)
    assert sorted(paths(tree)) == sorted(whole_heap(logp, 4))
    assert (np.diff(score) <= 0).all()


cells = st.sampled_from([0.0, -1.0, -2.0, -np.inf])


@given(st.lists(cells, min_size=CONTEXTS * VOCAB, max_size=CONTEXTS * VOCAB))
def test_trees_hold_their_nodes_ancestors(values):
  """Holds for all tables: probs with fewer tokens than children, with equal ones, with none."""
  tree, score, entry = search(
    np.array(values, np.float32).reshape(CONTEXTS, VOCAB), width=WIDTH, size=6
  )
  found = paths(tree)
  assert len(found) == len(set(found)) == np.isfinite(score).sum()
  assert (np.diff([len(path) for path in found]) >= 0).all(), "not level by level"
  valid, depth = tree.valid[0], tree.depth[0]
  inner = {int(parent) for parent in tree.parent[0][valid]} - {-1, 0}
  assert all(entry[0, node - 1] >= 0 for node in inner), "a node with children was not read"
  assert (entry[0][valid[1:]] // WIDTH < depth[1:][valid[1:]]).all()
  for parent in {0, *inner}:
    order = tree.order[0][valid & (tree.parent[0] == parent)]
    assert sorted(order.tolist()) == list(range(len(order))), "an elder sibling is missing"


@pytest.mark.parametrize(("levels", "read"), [(0, [-1, -1, -1]), (1, [0, 1, -1]), (2, [0, 1, 2])])
def test_only_levels_that_were_read_have_entries(levels, read):
  logp = np.log(np.array([[[0.5, 0.3, 0.2]]], np.float32))
  assert _entries(logp, levels).tolist() == [read]


@jax.jit
def _entries(logp, levels):
  found = Candidates.none(1, 3, 2).add(0, logp).add(1, jnp.tile(logp, (1, 2, 1)))
  _, number = found.best(3)
  return found.entry_of(jnp.sort(number, axis=1), levels)
