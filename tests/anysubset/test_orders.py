"""Orders: a fixed one keeps the model's joint distribution; and the lattice of subsets."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.anysubset import Sequential, lattice, log_likelihood, make_canvas
from mtjax.anysubset.likelihood.subset_lattice import decomposition, log_marginal, parent
from mtjax.anysubset.orders import ORDERS, get_order, targets_in_order
from mtjax.sampling.logits import row_keys, sample
from mtjax.types import Exactness
from tests.anysubset.enumerate_fill import distribution_of
from tests.anysubset.network_sizes import sizes
from tests.anysubset.table_network import TableNetwork, sequential_probs
from tests.anysubset.test_fill_distributions import (
  CONTEXT,
  ORDER,
  TABLES,
  VOCAB,
  distance,
  make_problem,
)


@pytest.mark.parametrize("name", ORDERS)
def test_a_fixed_order_keeps_the_models_joint_of_that_order(name):
  problem = make_problem()
  rank = get_order(name, problem.canvas, jax.random.key(5))
  order = tuple(int(i) for i in targets_in_order(problem.canvas, rank)[0][0])
  distribution = distribution_of(Sequential(), TableNetwork(VOCAB, 6), TABLES, make_problem(order))
  assert distance(distribution.chance, sequential_probs(TABLES, CONTEXT, order, VOCAB)) < 1e-12
  assert ORDERS[name].exactness is Exactness.LOSSLESS
  if name != "lattice":
    # The lattice's order gives the same texts another joint, because the tables are not consistent.
    left = {
      tuple(text[ORDER.index(i)] for i in order): p
      for text, p in sequential_probs(TABLES, CONTEXT, ORDER, VOCAB).items()
    }
    assert order != ORDER and distance(distribution.chance, left) > 0.02


def test_orders_as_ranks():
  is_target = jnp.array([[True, False, True, True, False], [False, True, True, False, False]])
  nothing = jnp.zeros(is_target.shape, jnp.int32)
  canvas = make_problem().canvas.replace(
    token=nothing, position=nothing, is_target=is_target, is_context=~is_target
  )
  np.testing.assert_array_equal(lattice(canvas), [[1, 0, 2, 3, 0], [0, 1, 2, 0, 0]])
  right = get_order("right_to_left", canvas, jax.random.key(0))
  np.testing.assert_array_equal(right, [[3, 0, 2, 1, 0], [0, 2, 1, 0, 0]])


def subsets(length):
  return [np.array(bits, bool) for bits in itertools.product([0, 1], repeat=length)]


@pytest.mark.parametrize("base", [None, np.array([3, 0, 4, 1, 2])])
def test_the_lattice_of_five_has_31_edges_where_any_order_has_80(base):
  """The numbers are 2^N - 1 and N 2^(N-1)."""
  size = 5
  used = set()
  for subset in subsets(size):
    path = []
    while subset.any():
      subset, element = parent(subset, base)
      used.add((tuple(subset), element))
      path.append(element)
  assert len(used) == 31
  every = {(tuple(subset), i) for subset in subsets(size) for i in range(size) if not subset[i]}
  assert len(every) == 80 and used < every


@pytest.mark.parametrize("base", [None, np.array([3, 0, 4, 1, 2])])
def test_the_decomposition_is_the_path_of_parents(base):
  for subset in subsets(5):
    ranks = np.array(decomposition(subset[None], None if base is None else base[None]))[0]
    for rank in range(int(subset.sum()), 0, -1):
      subset, element = parent(subset, base)
      assert ranks[element] == rank
      ranks[element] = 0
    assert not ranks.any()


def test_the_empty_subset_has_no_parent():
  with pytest.raises(ValueError, match="no parent"):
    parent(np.zeros(3, bool))


def test_marginals(tiny):
  """Marginals of first entries are sums of the joint; those of others see no other entries."""
  model, params = tiny
  texts = np.array(list(itertools.product(range(3), repeat=3)))
  token = np.insert(texts, 1, 2, axis=1)  # the second token is context
  canvas = make_canvas(model.config, token, np.tile([True, False, True, True], (27, 1)))
  is_target = np.asarray(canvas.is_target)
  first = is_target & (np.arange(5) <= 3)
  marginal = np.exp(log_marginal(model, params, canvas, first))
  joint = np.exp(log_likelihood(model, params, canvas).sum(axis=1))
  np.testing.assert_allclose(
    marginal.reshape(9, 3)[:, 0], joint.reshape(9, 3).sum(axis=1), atol=1e-6
  )
  last = is_target & (np.arange(5) >= 3)
  marginal_of_last = np.exp(log_marginal(model, params, canvas, last)).reshape(3, 9)
  np.testing.assert_allclose(
    marginal_of_last, marginal_of_last[:1].repeat(3, 0), atol=1e-6
  )  # whatever the first token is
  assert marginal_of_last[0].sum() == pytest.approx(1, abs=1e-5)
  assert np.abs(marginal_of_last[0] - joint.reshape(3, 9).sum(axis=0)).max() > 1e-3, (
    "it is not consistent"
  )
  with pytest.raises(ValueError, match="some entries of the subset are context"):
    log_marginal(model, params, canvas, ~is_target)


@pytest.mark.parametrize("name", ["random", "staggered", "eso"])
def test_an_order_is_independent_of_tokens_that_are_sampled_with_the_same_seed(name):
  """Which of two targets comes first, and the token of the first step, of 4000 rows."""
  rows = 4000
  canvas = make_canvas(sizes(2, 8), np.zeros((rows, 2), int), np.ones((rows, 2), bool))
  first = np.asarray(get_order(name, canvas, 7))[:, 0]
  token = np.asarray(sample(jnp.zeros((rows, 2)), row_keys(7, rows), jnp.zeros(rows, jnp.int32)))
  assert 0 < (first == 1).mean() < 1
  # Sampled with one key, the correlation was 0.3; its standard deviation is 0.016.
  assert abs(np.corrcoef(first, token)[0, 1]) < 0.08
