"""Every builder of frontiers against the textbook mask of its attention pattern."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtjax import frontier as builders
from tests.compiled import Compiled

# Sizes are fixed and values are sampled: a new shape needs a compilation, a new value does not.
F = Compiled(builders)


def _tokens(size, batch=1):
  return jnp.zeros((batch, size), jnp.int32)


def _ancestors(parent):
  """Returns the ancestor mask and the depths, by a walk up from every node."""
  size = len(parent)
  mask = np.zeros((size, size), bool)
  depth = np.zeros(size, int)
  for node in range(size):
    up = node
    while up >= 0:
      mask[node, up] = True
      up = parent[up]
    depth[node] = mask[node].sum() - 1
  return mask, depth


@pytest.mark.parametrize("size", [1, 2, 31, 256])
@given(seed=st.integers(0, 2**32 - 1), reach=st.sampled_from([1, 2, 5, 10**6]))
def test_tree_sees_ancestors_and_itself(size, seed, reach):
  rng = np.random.default_rng(seed)
  # reach 1 makes chains, a large one makes bushes; -1 makes a new root.
  parent = np.array([rng.integers(max(-1, node - reach), node) for node in range(size)])
  frontier = F.tree(_tokens(size), jnp.asarray(parent[None]), start=jnp.array([7]))
  mask, depth = _ancestors(parent)
  np.testing.assert_array_equal(F.as_dense(frontier)[0], mask)
  np.testing.assert_array_equal(frontier.position[0], 7 + depth)
  assert sorted(np.asarray(frontier.stamp[0, 0])) == list(range(size)), "stamps are a preorder"


def test_tree_ignores_invalid_nodes():
  parent = jnp.array([[-1, 0, 0, 1, 1]])
  valid = jnp.array([[True, True, False, True, False]])
  mask = F.as_dense(F.tree(_tokens(5), parent, valid=valid))[0]
  expected, _ = _ancestors([-1, 0, 0, 1, 1])
  kept = np.array(valid[0])
  np.testing.assert_array_equal(np.asarray(mask)[kept], expected[kept] & kept)


def test_causal_rows_have_their_own_start_and_length():
  frontier = F.causal(_tokens(4, 2), start=jnp.array([3, 0]), length=jnp.array([4, 2]))
  np.testing.assert_array_equal(frontier.position, [[3, 4, 5, 6], [0, 1, 2, 3]])
  mask = np.asarray(F.as_dense(frontier))
  np.testing.assert_array_equal(mask[0], np.tri(4, dtype=bool))
  np.testing.assert_array_equal(mask[1, :, 2:], False)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 5))
def test_packed_documents_are_causal_and_blind_to_each_other(lengths, padding):
  document = np.repeat(np.arange(1, len(lengths) + 1), lengths)
  position = np.concatenate([np.arange(n) for n in lengths])
  document = np.pad(np.concatenate([document, [0] * padding]), (0, 64))[:64]
  frontier = F.packed(_tokens(64), jnp.asarray(document[None], jnp.int32))
  index = np.arange(64)
  same = document[:, None] == document
  expected = same & (index <= index[:, None]) & (document > 0)
  real = document > 0
  np.testing.assert_array_equal(np.asarray(F.as_dense(frontier))[0][real], expected[real])
  used = min(len(position), 64)
  np.testing.assert_array_equal(frontier.position[0][:used], position[:used])


def test_packed_neighbours_with_the_same_length_stay_apart():
  frontier = F.packed(_tokens(4), jnp.array([[1, 1, 2, 2]]))
  np.testing.assert_array_equal(F.as_dense(frontier)[0], np.kron(np.eye(2), np.tri(2)).astype(bool))


def test_bidirectional_canvas_sees_itself_whole():
  frontier = F.bidirectional(_tokens(5), start=9, length=jnp.array([4]))
  mask = np.asarray(F.as_dense(frontier))[0]
  np.testing.assert_array_equal(mask[:, :4], True)
  np.testing.assert_array_equal(mask[:, 4], False)


@given(st.permutations(range(12)), st.integers(0, 11))
def test_two_streams_of_a_random_order(order, prompt):
  # The first `prompt` entries of the order are context: one rank, mutually visible.
  rank = np.empty(12, int)
  rank[list(order)] = np.maximum(np.arange(12) - prompt + 1, 0)
  position = jnp.arange(12)[None]
  frontier = F.two_stream(_tokens(12), _tokens(12), position, jnp.asarray(rank[None]))
  mask = np.asarray(F.as_dense(frontier))[0]
  np.testing.assert_array_equal(mask[:12, :12], rank <= rank[:, None], "contents")
  np.testing.assert_array_equal(mask[12:, :12], rank < rank[:, None], "queries see earlier ranks")
  np.testing.assert_array_equal(mask[:, 12:], False, "nobody sees a query")


@given(st.permutations(range(8)), st.integers(0, 7))
def test_draft_queries_see_exactly_the_decided_entries(order, decided):
  rank = np.empty(8, int)
  rank[list(order)] = np.arange(8)
  position = jnp.arange(8)[None]
  known = F.content(_tokens(8), position, jnp.asarray(rank[None]))
  drafts = F.query(_tokens(8), position, jnp.full((1, 8), decided))
  mask = np.asarray(F.as_dense(F.concatenate(known, drafts)))[0]
  np.testing.assert_array_equal(mask[8:, :8], np.broadcast_to(rank < decided, (8, 8)))


@pytest.mark.parametrize("width", [1, 3, 12])
def test_block_diffusion_mask(width):
  block = np.arange(12) // width
  frontier = F.block_diffusion(_tokens(12), _tokens(12), jnp.asarray(block[None]))
  mask = np.asarray(F.as_dense(frontier))[0]
  row, column = block[:, None], block
  np.testing.assert_array_equal(mask[:12, :12], row == column, "noisy sees its noisy block")
  np.testing.assert_array_equal(mask[:12, 12:], column < row, "noisy sees earlier clean blocks")
  np.testing.assert_array_equal(mask[12:, 12:], column <= row, "clean is block-causal")
  np.testing.assert_array_equal(mask[12:, :12], False, "clean never sees noise")


def test_canvases_after_causal_text():
  begin = np.array([0, 0, 2, 3, 3, 3, 3, 7, 7, 7])
  index, where = np.arange(10), jnp.asarray(begin[None])
  mask = np.asarray(F.as_dense(F.causal_canvases(_tokens(10), _tokens(10), where)))[0]
  np.testing.assert_array_equal(mask[:10, :10], begin[:, None] == begin, "noisy sees its canvas")
  np.testing.assert_array_equal(mask[:10, 10:], index < begin[:, None], "and clean text before it")
  np.testing.assert_array_equal(mask[10:, 10:], index <= index[:, None], "clean is causal")
  np.testing.assert_array_equal(mask[10:, :10], False, "clean never sees noise")


@given(st.lists(st.integers(0, 4), min_size=10, max_size=10).map(sorted))
def test_blocks(block):
  block = np.array(block)
  blocks = jnp.asarray(block[None])
  causal = F.as_dense(F.block_causal(_tokens(10), blocks))[0]
  local = F.as_dense(F.block_local(_tokens(10), blocks))[0]
  np.testing.assert_array_equal(causal, block <= block[:, None])
  np.testing.assert_array_equal(local, block == block[:, None])


def test_both_needs_every_dimension():
  documents = F.packed(_tokens(6), jnp.array([[1, 1, 1, 2, 2, 2]]))
  order = F.block_causal(_tokens(6), jnp.array([[2, 1, 0, 2, 1, 0]]))
  one, other = F.as_dense(documents), F.as_dense(order)
  np.testing.assert_array_equal(F.as_dense(F.both(documents, order)), one & other)


def test_hidden_key_and_own():
  frontier = F.bidirectional(_tokens(3)).replace(hidden=jnp.array([[2, -1, 0]]))
  np.testing.assert_array_equal(
    F.as_dense(frontier)[0], [[True, True, False], [True, True, True], [False, True, True]]
  )
  blind = F.query(_tokens(3), jnp.zeros((1, 3), int), jnp.zeros((1, 3), int))
  blind = blind.replace(own=jnp.array([[True, False, True]]))
  np.testing.assert_array_equal(F.as_dense(blind)[0], np.diag([True, False, True]))


def test_builders_work_under_jit_with_the_topology_as_data():
  traces = []

  @jax.jit
  def build(parent):
    traces.append(None)
    return F.tree(_tokens(4), parent)

  for parent in ([-1, 0, 1, 2], [-1, -1, 0, 0], [-1, 0, 0, 0]):
    np.testing.assert_array_equal(F.as_dense(build(jnp.array([parent])))[0], _ancestors(parent)[0])
  assert len(traces) == 1, "a new topology of one size must not compile again"


@pytest.mark.ill_typed
def test_refusals():
  with pytest.raises(ValueError, match="must have the same shape"):
    F.tree(_tokens(4), jnp.zeros((1, 3), int))
  with pytest.raises(ValueError, match="interval dimensions"):
    F.concatenate(F.causal(_tokens(2)), F.both(F.causal(_tokens(2)), F.causal(_tokens(2))))
  with pytest.raises(ValueError, match=r"the same shape, got \(1, 2\) and \(1, 3\)"):
    F.both(F.causal(_tokens(2)), F.causal(_tokens(3)))
  hidden = F.causal(_tokens(2)).replace(hidden=jnp.zeros((1, 2), int))
  with pytest.raises(ValueError, match="hidden"):
    F.concatenate(hidden, functools.partial(F.causal, _tokens(2))())
