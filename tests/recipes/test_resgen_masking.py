"""Masks by depth: their exact distribution, by all orders of the noise, and the reverse of it."""

import itertools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.recipes.resgen.masking import (
  cosine_share,
  counts_of_ranks,
  mask_counts,
  masked_tokens,
  remask,
  sample_counts,
)

LENGTH, DEPTH = 3, 2
TOTAL = LENGTH * DEPTH
# Every order of the noise of all codes is equally probable: these enumerate it.
ORDERS = np.array(list(itertools.permutations(range(TOTAL))), np.float32)
ORDERS = ORDERS.reshape(-1, LENGTH, DEPTH)


def hypergeometric(capacity, n):
  """Returns {k: prod_i C(c_i, k_i) / C(sum c, n)} for positions with c_i codes."""
  every = itertools.product(*(range(c + 1) for c in capacity))
  return {
    k: math.prod(map(math.comb, capacity, k)) / math.comb(sum(capacity), n)
    for k in every
    if sum(k) == n
  }


def distribution(counts):
  seen = Counter(map(tuple, np.asarray(counts).tolist()))
  return {k: times / len(counts) for k, times in seen.items()}


def close(one, other, tolerance=1e-12):
  return one.keys() == other.keys() and all(abs(one[k] - other[k]) <= tolerance for k in one)


@pytest.fixture(scope="module")
def exact():
  """The distribution of the masks for every number of masked codes."""
  batched = jax.jit(counts_of_ranks)
  return {n: distribution(batched(ORDERS, np.full(len(ORDERS), n))) for n in range(TOTAL + 1)}


def test_the_masks_are_multivariate_hypergeometric(exact):
  for n in range(TOTAL + 1):
    assert close(exact[n], hypergeometric([DEPTH] * LENGTH, n))


def test_the_check_sees_masks_that_are_not(exact):
  """Whole positions at random, and an equal choice among all k of one sum, are other masks."""
  whole = distribution([[2, 1, 0], [2, 0, 1], [1, 2, 0], [0, 2, 1], [1, 0, 2], [0, 1, 2]])
  every = [k for k in itertools.product(range(DEPTH + 1), repeat=LENGTH) if sum(k) == 3]
  assert not close(exact[3], whole) and not close(exact[3], distribution(every))


def test_sampled_masks_have_these_marginals():
  n = jnp.full((4000,), 3)
  counts = np.asarray(sample_counts(jax.random.key(0), n, length=LENGTH, depth=DEPTH))
  assert (counts.sum(1) == 3).all()
  expected = hypergeometric([DEPTH] * LENGTH, 3)
  seen = Counter(map(tuple, counts.tolist()))
  chi = sum((seen[k] - 4000 * p) ** 2 / (4000 * p) for k, p in expected.items())
  assert len(expected) - 1 == 6 and chi < 22.5  # 0.1 % of the chi-square of 6 degrees


@pytest.mark.parametrize(("before", "after"), [(5, 3), (3, 1), (6, 2)])
def test_a_step_of_equal_scores_is_the_reverse_of_the_noise(exact, before, after):
  """Masks with n codes, unmasked to n' by noise alone, have the distribution of n' codes."""
  step = jax.jit(remask)
  total = Counter()
  for counts, probability in exact[before].items():
    rows = np.broadcast_to(np.array(counts), (len(ORDERS), LENGTH))
    kernel = distribution(step(rows, np.zeros(rows.shape, np.float32), ORDERS, after))
    assert close(kernel, hypergeometric(counts, after))
    for k, share in kernel.items():
      total[k] += probability * share
  assert close(dict(total), hypergeometric([DEPTH] * LENGTH, after), 1e-9)


def test_a_step_by_scores_is_not_the_reverse(exact):
  rows = np.full((len(ORDERS), LENGTH), DEPTH)
  score = np.broadcast_to(np.array([2.0, 0.0, 0.0], np.float32), rows.shape)
  kernel = distribution(remask(rows, score, ORDERS, 3))
  assert not close(kernel, hypergeometric([DEPTH] * LENGTH, 3))


def test_unmasking_keeps_the_lowest_scores_masked_and_adds_no_mask():
  counts = jnp.array([[2, 3, 0, 1]])
  score = jnp.array([[0.5, -1.0, 9.0, 3.0]])
  still = jnp.zeros((1, 4, 3))
  for n, expected in ((5, [2, 3, 0, 0]), (4, [1, 3, 0, 0]), (3, [0, 3, 0, 0]), (0, [0] * 4)):
    assert np.asarray(remask(counts, score, still, n)).tolist() == [expected]


def test_masks_are_the_deepest_codes_and_grow_with_the_count():
  masks = np.asarray(masked_tokens(jnp.arange(DEPTH + 2), DEPTH + 1))
  assert (masks.sum(1) == np.arange(DEPTH + 2)).all()
  # Where a depth is masked all deeper ones are, and so it stays when the count grows.
  assert (np.diff(masks.astype(int), axis=1) >= 0).all()
  assert (np.diff(masks.astype(int), axis=0) >= 0).all()


def test_with_one_depth_it_is_a_masked_token_model():
  """Depth 1: n of L positions are masked, each set of n with the same probability."""
  orders = np.array(list(itertools.permutations(range(4))), np.float32)[:, :, None]
  got = distribution(counts_of_ranks(orders, np.full(24, 2)))
  sets = [[int(i in chosen) for i in range(4)] for chosen in itertools.combinations(range(4), 2)]
  assert close(got, distribution(sets))


def test_the_number_of_masks_follows_the_cosine():
  times = jnp.array([0.0, 0.25, 0.5, 0.75, 0.999999])
  np.testing.assert_allclose(cosine_share(times)[jnp.array([0, 2])], [1, 0.5**0.5], atol=1e-6)
  assert mask_counts(times, 100).tolist() == [100, 93, 71, 39, 1]
