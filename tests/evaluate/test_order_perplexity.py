"""Perplexity by order: of the same tokens, and of a consistent model the same in every order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.anysubset import log_likelihood
from mtjax.anysubset.canvas import Canvas
from mtjax.evaluate.order_perplexity import NAMES, order_perplexity
from tests.anysubset.set_network import SetNetwork, consistent_tables

NETWORK = SetNetwork(2, 4)


def canvas_of(seed=0, rows=5):
  rng = np.random.default_rng(seed)
  token, is_target = rng.integers(0, 2, (rows, 4)), rng.random((rows, 4)) < 0.6
  place = np.broadcast_to(np.arange(4), token.shape)
  return Canvas(*(jnp.asarray(x) for x in (token, place, ~is_target, is_target)))


def scores(tables, canvas, **settings):
  return {s.order: s for s in order_perplexity(NETWORK, tables, canvas, **settings)}


def test_a_consistent_model_has_one_perplexity_in_every_order_that_sees_the_same():
  joint = np.random.default_rng(0).dirichlet(np.ones(16)).reshape((2,) * 4)
  found = scores(consistent_tables(joint), canvas_of(), batch=2)
  assert list(found) == list(NAMES)
  for name in ("right_to_left", "random"):
    assert found[name].nats == pytest.approx(found["lattice"].nats, abs=1e-6)
  assert found["random"].spread < 1e-6
  # Without what is given on the right it is another law.
  assert abs(found["left_to_right"].nats - found["lattice"].nats) > 1e-2


def test_a_model_that_is_not_consistent_spreads():
  rng = np.random.default_rng(1)
  tables = dict(logits=rng.normal(size=(81, 4, 2)))
  canvas = canvas_of()
  found = scores(tables, canvas, batch=2, seeds=6)
  assert found["random"].spread > 1e-2
  whole = log_likelihood(NETWORK, tables, canvas).sum()
  count = int(canvas.is_target.sum())
  assert found["lattice"].nats == pytest.approx(-whole / count, rel=1e-5)
  assert found["lattice"].tokens == count
  assert found["lattice"].perplexity == pytest.approx(np.exp(-whole / count), rel=1e-5)


def test_with_nothing_given_the_lattices_order_is_left_to_right():
  tables = dict(logits=np.random.default_rng(1).normal(size=(81, 4, 2)))
  canvas = canvas_of()
  every = jnp.ones_like(canvas.is_target)
  found = scores(tables, canvas.replace(is_target=every, is_context=~every))
  assert found["left_to_right"].nats == found["lattice"].nats


def test_refusals():
  tables, canvas = dict(logits=jnp.zeros((81, 4, 2))), canvas_of()
  with pytest.raises(ValueError, match="'sorted'.* are not among lattice"):
    scores(tables, canvas, orders=["sorted"])
  with pytest.raises(ValueError, match="are not among lattice"):
    scores(tables, canvas, orders=[])
  with pytest.raises(ValueError, match="at least 1"):
    scores(tables, canvas, seeds=0)
  with pytest.raises(ValueError, match="nothing is asked"):
    scores(tables, jax.tree.map(lambda x: x, canvas.replace(is_target=canvas.is_target & False)))
