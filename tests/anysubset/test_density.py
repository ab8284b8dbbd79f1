"""One pass gives the density: it is the product of the conditionals, and it sums to one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.anysubset import lattice, log_likelihood, make_canvas
from mtjax.anysubset.likelihood.masked_bound import exact_masked_bound
from mtjax.anysubset.orders import get_order, random_order, targets_in_order

ASKED = np.array([[True, False, True, True, False]])


def texts_of(given, vocab=3):
  """Every completion of one text."""
  texts = np.array(list(itertools.product(range(vocab), repeat=int(ASKED.sum()))))
  token = np.repeat(np.array([given]), len(texts), axis=0)
  token[:, ASKED[0]] = texts
  return token


@pytest.mark.parametrize("order", ["lattice", "random"])
def test_the_density_of_all_completions_sums_to_one(tiny, order):
  model, params = tiny
  token = texts_of([0, 1, 0, 0, 2])
  canvas = make_canvas(model.config, token, np.repeat(ASKED, len(token), axis=0))
  # One order for all of them: a law is of an order.
  rank = get_order(order, make_canvas(model.config, token[:1], ASKED), jax.random.key(1))
  found = log_likelihood(model, params, canvas, np.repeat(rank, len(token), axis=0))
  assert np.exp(found.sum(axis=1)).sum() == pytest.approx(1, abs=1e-5)
  assert (found[:, ~np.asarray(canvas.is_target)[0]] == 0).all()


def test_one_pass_is_the_product_of_the_conditionals(tiny):
  """Entry by entry, each asked alone with all before it given; not a product of marginals.

  Given entries see each other and decided ones do not see later ones, so a conditional in which
  earlier entries are given is another law: asked in order, by a growing text, is what is compared.
  """
  model, params = tiny
  rng = np.random.default_rng(0)
  token, is_target = rng.integers(0, 3, (3, 12)), rng.random((3, 12)) < 0.5
  canvas = make_canvas(model.config, token, is_target)
  whole = log_likelihood(model, params, canvas)
  order, total = targets_in_order(canvas, lattice(canvas))
  for n in range(1, int(total.min())):
    # Without what comes after the first n in the order: neither given nor asked.
    later = np.asarray(lattice(canvas)) > n
    cut = canvas.replace(is_target=canvas.is_target & ~later)
    found = log_likelihood(model, params, cut)
    rows = np.arange(3)
    np.testing.assert_allclose(
      found[rows, order[:, n - 1]], whole[rows, order[:, n - 1]], atol=2e-6
    )


def test_the_order_matters_and_padding_does_not(tiny):
  model, params = tiny
  rng = np.random.default_rng(1)
  token, is_target = rng.integers(0, 3, (2, 12)), rng.random((2, 12)) < 0.6
  canvas = make_canvas(model.config, token, is_target)
  found = log_likelihood(model, params, canvas)
  other = log_likelihood(model, params, canvas, random_order(canvas, jax.random.key(0)))
  assert np.abs(found.sum(axis=1) - other.sum(axis=1)).min() > 1e-3
  wide = [np.pad(x, ((0, 0), (0, 7))) for x in (token, is_target, np.ones_like(is_target))]
  padded = make_canvas(model.config, *wide)
  np.testing.assert_allclose(log_likelihood(model, params, padded)[:, :13], found, atol=2e-6)


def test_an_order_is_refused_that_is_none(tiny):
  model, params = tiny
  canvas = make_canvas(model.config, np.zeros((1, 5), int), ASKED)
  with pytest.raises(ValueError, match="rank is no order"):
    log_likelihood(model, params, canvas, np.zeros((1, 6), int))
  with pytest.raises(ValueError, match="given entries must have rank 0"):
    log_likelihood(model, params, canvas, lattice(canvas) + canvas.is_context)
  with pytest.raises(ValueError, match="is not one of lattice, random"):
    get_order("sorted", canvas, jax.random.key(0))
  with pytest.raises(ValueError, match="asked tokens are outside"):
    log_likelihood(model, params, canvas.replace(token=canvas.token + 5 * canvas.is_target))


@pytest.mark.parametrize("score", [log_likelihood, exact_masked_bound])
def test_a_canvas_that_was_changed_is_checked_again(score, tiny):
  model, params = tiny
  canvas = make_canvas(model.config, np.zeros((1, 5), int), ASKED)
  place = int(np.flatnonzero(np.asarray(canvas.is_context)[0])[1])
  for token, message in ((3, "holds the query token"), (-1, "outside 0..2"), (4, "outside 0..2")):
    with pytest.raises(ValueError, match=message):
      score(model, params, canvas.replace(token=canvas.token.at[0, place].set(token)))
  with pytest.raises(ValueError, match="both given and asked"):
    score(model, params, canvas.replace(is_context=canvas.is_context | canvas.is_target))


def test_a_random_order_is_the_rows_own(tiny):
  is_target = np.random.default_rng(2).random((2, 12)) < 0.6
  canvas = make_canvas(tiny[0].config, np.zeros((2, 12), int), is_target)
  key = jax.random.key(4)
  found = random_order(canvas, key)
  wide = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 7))), canvas)
  np.testing.assert_array_equal(random_order(wide, key)[:, :13], found)
  alone = jax.tree.map(lambda x: x[1:], canvas)
  own = random_order(alone, jax.random.fold_in(key, 1)[None])
  np.testing.assert_array_equal(own[0], found[1])
  assert (
    (np.asarray(found) != np.asarray(random_order(canvas, jax.random.key(5)))).any(axis=1).all()
  )
