"""Trees in every encoding are the same tree; what is none is refused."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtjax import frontier
from mtjax.trees import EAGLE_25, MEDUSA_63, Topology, chain, encodings, k_ary


@st.composite
def topologies(draw, sizes=st.integers(1, 40)):
  size = draw(sizes)
  parents = [-1] + [draw(st.integers(0, node - 1)) for node in range(1, size)]
  return encodings.from_parents(parents)


@given(topologies())
def test_every_encoding_comes_back(tree):
  assert encodings.from_ancestors(encodings.to_ancestors(tree)) == tree
  assert encodings.from_siblings(*encodings.to_siblings(tree)) == tree
  by_level = encodings.from_paths(encodings.to_paths(tree))
  assert sorted(encodings.to_paths(by_level)) == sorted(encodings.to_paths(tree))
  assert encodings.from_paths(encodings.to_paths(by_level)) == by_level


@given(topologies())
def test_leaves_and_masks_agree(tree):
  rows = encodings.to_retrieve_indices(tree)
  mask = encodings.to_ancestors(tree)
  for row in rows:
    path = row[row >= 0]
    np.testing.assert_array_equal(np.flatnonzero(mask[path[-1]]), np.sort(path))
  assert {node for row in rows for node in row} - {-1} == set(range(tree.size))
  assert rows.shape[1] == tree.height + 1


# Few sizes: each is a compilation.
@given(topologies(st.sampled_from((1, 2, 3, 7, 40))))
def test_the_frontier_of_a_tree_is_its_ancestor_mask(tree):
  made = tree.tree(jnp.zeros((1, tree.size), jnp.int32))
  position, mask = _position_and_mask(made.token, made.parent)
  np.testing.assert_array_equal(mask[0], encodings.to_ancestors(tree))
  np.testing.assert_array_equal(position[0], 5 + np.array(tree.depth))
  order, depth = np.asarray(made.order), np.asarray(made.depth)
  assert order.max() < made.breadth and depth.max() == made.height


@jax.jit
def _position_and_mask(token, parent):
  built = frontier.tree(token, parent, start=5)
  return built.position, frontier.as_dense(built)


# Drafts, drafts by depth, leaves, and ones in the mask with the root, of the lists that the papers'
# code ships.
@pytest.mark.parametrize(
  ("tree", "nodes", "by_depth", "leaves", "ones"),
  [
    (MEDUSA_63, 63, {1: 10, 2: 28, 3: 23, 4: 2}, 42, 207),
    (EAGLE_25, 25, {1: 4, 2: 8, 3: 8, 4: 3, 5: 2}, 15, 92),
  ],
)
def test_published_trees(tree, nodes, by_depth, leaves, ones):
  assert tree.size == nodes + 1
  assert collections.Counter(tree.depth[1:]) == by_depth
  assert len(encodings.to_retrieve_indices(tree)) == leaves
  assert encodings.to_ancestors(tree).sum() == ones
  assert tree.rank == tree.order, "a sibling is missing on the left"


def test_chains_and_k_ary_trees():
  assert encodings.to_paths(chain(3)) == [[0], [0, 0], [0, 0, 0]] and chain(3).is_chain
  assert (chain(0).size, chain(0).height, chain(0).breadth) == (1, 0, 1)
  tree = k_ary((3, 2))
  assert collections.Counter(tree.depth) == {0: 1, 1: 3, 2: 6} and tree.breadth == 3
  assert tree.levels()[1] == [1, 2, 3]


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: Topology((), ()), "node 0 must be the root"),
    (lambda: Topology((-1, 2, 1), (0, 0, 0)), "node 1 has parent 2: a parent must stand before"),
    (lambda: Topology((-1, -1), (0, 1)), "node 1 has parent -1"),
    (lambda: Topology((-1, 0, 0), (0, 1, 1)), "ranks of siblings must grow"),
    (lambda: encodings.from_paths([[0, 1]]), r"path \[0, 1\] needs its prefix \[0\]"),
    (lambda: encodings.from_paths([[0], [0]]), "in the list twice"),
    (lambda: encodings.from_ancestors(np.ones((3, 3), bool)), "parent|mask"),
    (lambda: encodings.from_siblings([1, -1], [-1, 1]), "run in a circle"),
    (lambda: chain(2).tree(jnp.zeros((1, 4), jnp.int32)), "4 tokens per row for a tree of 3"),
    (lambda: k_ary((2, 0)), "at least one child"),
  ],
)
def test_what_is_no_tree_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
