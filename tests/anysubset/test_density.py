"""One pass gives the density: it is the product of the conditionals, and it sums to one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.anysubset import lattice, log_likelihood, make_canvas
from mtjax.anysubset.likelihood.masked_bound import exact_masked_bound
from mtjax.anysubset.orders import get_order, random_order, targets_in_order

IS_TARGET = np.array([[True, False, True, True, False]])


def texts_of(text, vocab=3):
  """Returns every completion of one text."""
  texts = np.array(list(itertools.product(range(vocab), repeat=int(IS_TARGET.sum()))))
  token = np.repeat(np.array([text]), len(texts), axis=0)
  token[:, IS_TARGET[0]] = texts
  return token


@pytest.mark.parametrize("order", ["lattice", "random"])
def test_the_density_of_all_completions_sums_to_one(tiny, order):
  model, params = tiny
  token = texts_of([0, 1, 0, 0, 2])
  canvas = make_canvas(model.config, token, np.repeat(IS_TARGET, len(token), axis=0))
  # One order for all of them: the distribution depends on the order.
  rank = get_order(order, make_canvas(model.config, token[:1], IS_TARGET), jax.random.key(1))
  log_p = log_likelihood(model, params, canvas, np.repeat(rank, len(token), axis=0))
  assert np.exp(log_p.sum(axis=1)).sum() == pytest.approx(1, abs=1e-5)
  assert (log_p[:, ~np.asarray(canvas.is_target)[0]] == 0).all()


def test_one_pass_is_the_product_of_the_conditionals(tiny):
  """It equals the conditionals of a text that grows entry by entry; it is no product of marginals.

  Context entries see each other, and decided ones do not see later ones. So a conditional with
  earlier entries as context would be another one: here they stay targets.
  """
  model, params = tiny
  rng = np.random.default_rng(0)
  token, is_target = rng.integers(0, 3, (3, 12)), rng.random((3, 12)) < 0.5
  canvas = make_canvas(model.config, token, is_target)
  whole = log_likelihood(model, params, canvas)
  order, total = targets_in_order(canvas, lattice(canvas))
  for n in range(1, int(total.min())):
    # Entries after the first n of the order are left out: neither context nor targets.
    later = np.asarray(lattice(canvas)) > n
    cut = canvas.replace(is_target=canvas.is_target & ~later)
    log_p = log_likelihood(model, params, cut)
    rows = np.arange(3)
    np.testing.assert_allclose(
      log_p[rows, order[:, n - 1]], whole[rows, order[:, n - 1]], atol=2e-6
    )


def test_the_order_matters_and_padding_does_not(tiny):
  model, params = tiny
  rng = np.random.default_rng(1)
  token, is_target = rng.integers(0, 3, (2, 12)), rng.random((2, 12)) < 0.6
  canvas = make_canvas(model.config, token, is_target)
  log_p = log_likelihood(model, params, canvas)
  other = log_likelihood(model, params, canvas, random_order(canvas, jax.random.key(0)))
  assert np.abs(log_p.sum(axis=1) - other.sum(axis=1)).min() > 1e-3
  wide = [np.pad(x, ((0, 0), (0, 7))) for x in (token, is_target, np.ones_like(is_target))]
  padded = make_canvas(model.config, *wide)
  np.testing.assert_allclose(log_likelihood(model, params, padded)[:, :13], log_p, atol=2e-6)


def test_ranks_that_are_no_order_are_refused(tiny):
  model, params = tiny
  canvas = make_canvas(model.config, np.zeros((1, 5), int), IS_TARGET)
  with pytest.raises(ValueError, match="rank is no order"):
    log_likelihood(model, params, canvas, np.zeros((1, 6), int))
  with pytest.raises(ValueError, match="context entries must have rank 0"):
    log_likelihood(model, params, canvas, lattice(canvas) + canvas.is_context)
  with pytest.raises(ValueError, match="is not one of lattice, random"):
    get_order("sorted", canvas, jax.random.key(0))
  with pytest.raises(ValueError, match="target tokens must be within"):
    log_likelihood(model, params, canvas.replace(token=canvas.token + 5 * canvas.is_target))


@pytest.mark.parametrize("score", [log_likelihood, exact_masked_bound])
def test_a_canvas_that_was_changed_is_checked_again(score, tiny):
  model, params = tiny
  canvas = make_canvas(model.config, np.zeros((1, 5), int), IS_TARGET)
  place = int(np.flatnonzero(np.asarray(canvas.is_context)[0])[1])
  for token, message in ((3, "holds the query token"), (-1, "within 0..2"), (4, "within 0..2")):
    with pytest.raises(ValueError, match=message):
      score(model, params, canvas.replace(token=canvas.token.at[0, place].set(token)))
  with pytest.raises(ValueError, match="both context and target"):
    score(model, params, canvas.replace(is_context=canvas.is_context | canvas.is_target))


def test_a_rows_random_order_does_not_depend_on_other_rows_or_padding(tiny):
  is_target = np.random.default_rng(2).random((2, 12)) < 0.6
  canvas = make_canvas(tiny[0].config, np.zeros((2, 12), int), is_target)
  key = jax.random.key(4)
  rank = random_order(canvas, key)
  wide = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 7))), canvas)
  np.testing.assert_array_equal(random_order(wide, key)[:, :13], rank)
  alone = jax.tree.map(lambda x: x[1:], canvas)
  rank_alone = random_order(alone, jax.random.fold_in(key, 1)[None])
  np.testing.assert_array_equal(rank_alone[0], rank[1])
  assert (np.asarray(rank) != np.asarray(random_order(canvas, jax.random.key(5)))).any(axis=1).all()
