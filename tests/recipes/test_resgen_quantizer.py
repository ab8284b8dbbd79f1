"""Residual quantisation: errors by depth, sums of embeddings, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.recipes.resgen.quantizer import ResidualQuantizer, fit_quantizer

DEPTH, CODES, WIDTH = 4, 6, 3


@pytest.fixture(scope="module")
def vectors():
  rng = np.random.default_rng(0)
  return (rng.normal(size=(400, WIDTH)) * [3, 1, 0.5] + rng.integers(0, 2, (400, 1))).astype("f4")


@pytest.fixture(scope="module")
def quantizer(vectors):
  return fit_quantizer(vectors, depth=DEPTH, codes=CODES, seed=1)


def errors(quantizer, x):
  """Returns the squared errors [D + 1, N] of x after 0, 1, ... depths."""
  tokens = quantizer.encode(x)
  kept = [quantizer.embed(tokens, 0, depth) for depth in range(quantizer.depth + 1)]
  return np.stack([np.square(x - np.asarray(y)).sum(-1) for y in kept])


def slow_encode(books, x):
  """The program of the definition: the nearest code to what is left, depth by depth."""
  tokens = []
  for book in books:
    tokens.append(int(np.argmin(np.square(x - book).sum(-1))))
    x = x - book[tokens[-1]]
  return tokens, x


def test_codes_are_those_of_the_definition_and_the_error_is_the_residual(quantizer, vectors):
  x = vectors[:20].astype(np.float64)
  books = np.asarray(quantizer.codebooks, np.float64)
  tokens = np.asarray(quantizer.encode(jnp.asarray(vectors[:20])))
  for row, got in zip(x, tokens, strict=True):
    want, rest = slow_encode(books, row)
    assert got.tolist() == want
    embedded = np.asarray(quantizer.embed(jnp.asarray(got)))
    np.testing.assert_allclose(row - embedded, rest, atol=1e-5)


def test_no_vectors_error_grows_with_depth_not_even_of_new_ones(quantizer, vectors):
  new = np.random.default_rng(7).normal(size=(200, WIDTH)).astype("f4") * 5
  for x in (vectors, new):
    assert (np.diff(errors(quantizer, x), axis=0) <= 1e-4).all()
  mean = errors(quantizer, vectors).mean(1)
  assert (np.diff(mean) < 0).all() and mean[-1] < 0.1 * mean[0]


def test_the_check_of_errors_sees_codebooks_without_the_zero_vector(quantizer):
  shifted = ResidualQuantizer(quantizer.codebooks + 2.0)
  x = np.zeros((5, WIDTH), np.float32)
  assert (np.diff(errors(shifted, x), axis=0) > 1e-4).any()


def test_the_known_and_the_masked_depths_sum_to_the_whole(quantizer, vectors):
  tokens = quantizer.encode(jnp.asarray(vectors[:30]))
  border = jnp.arange(30) % (DEPTH + 1)
  parts = quantizer.embed(tokens, 0, border) + quantizer.embed(tokens, border)
  np.testing.assert_allclose(parts, quantizer.embed(tokens), atol=1e-5)
  assert not np.asarray(quantizer.embed(tokens, DEPTH)).any()


def test_the_rest_is_quantised_with_the_depths_that_are_left(quantizer):
  x = jnp.asarray(np.random.default_rng(3).normal(size=(DEPTH + 1, WIDTH)).astype("f4"))
  known = jnp.arange(DEPTH + 1)
  got = np.asarray(jax.jit(quantizer.encode_rest)(x, known))
  books = np.asarray(quantizer.codebooks)
  for row in range(DEPTH + 1):
    want = [0] * row + slow_encode(books[row:], np.asarray(x[row]))[0]
    assert got[row].tolist() == want


def test_a_fit_uses_its_codes_and_is_repeated_by_its_seed(quantizer, vectors):
  again = fit_quantizer(vectors, depth=DEPTH, codes=CODES, seed=1)
  np.testing.assert_array_equal(again.codebooks, quantizer.codebooks)
  assert not np.asarray(quantizer.codebooks)[:, 0].any()
  used = [len(set(column.tolist())) for column in np.asarray(quantizer.encode(vectors)).T]
  assert min(used) >= CODES - 1


def test_equal_vectors_leave_nothing():
  quantizer = fit_quantizer(np.ones((10, 2), np.float32), depth=2, codes=3)
  assert errors(quantizer, np.ones((1, 2), np.float32))[-1] == 0


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    (dict(depth=0, codes=4), "a depth >= 1 and at least 2 codes, got 0, 4"),
    (dict(depth=1, codes=1), "a depth >= 1 and at least 2 codes, got 1, 1"),
    (dict(depth=1, codes=500), "500 codes need at least as many vectors, got 400"),
  ],
)
def test_sizes_that_cannot_be_fitted_are_refused(vectors, sizes, message):
  with pytest.raises(ValueError, match=message):
    fit_quantizer(vectors, **sizes)
