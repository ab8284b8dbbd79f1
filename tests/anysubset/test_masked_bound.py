"""The ELBO identity: masked diffusion's bound is the mean over orders of the log-likelihood."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.anysubset import log_likelihood, make_canvas
from mtjax.anysubset.canvas import Canvas
from mtjax.anysubset.likelihood.masked_bound import (
  exact_masked_bound,
  sampled_masked_bound,
  weight_of_subset,
)
from tests.anysubset.set_network import SetNetwork, row_of

VOCAB, LENGTH = 3, 4
TEXT = (2, 0, 1, 1)
NETWORK = SetNetwork(VOCAB, LENGTH)
ORDERS = list(itertools.permutations(range(LENGTH)))
# Mean over the 24 orders of log p(TEXT), computed apart for the conditionals of `walked`.
KNOWN = -4.765915102


def walked():
  """(tables, mean over orders of log p(TEXT)): conditionals drawn as orders first meet them.

  Random and not consistent: normal logits of scale 1.5, numpy seed 0. What no order of this text
  meets stays 0, and nothing here reads it.
  """
  rng = np.random.default_rng(0)
  logits = np.zeros(((VOCAB + 1) ** LENGTH, LENGTH, VOCAB))
  met, total = set(), 0.0
  for order in ORDERS:
    known = [None] * LENGTH
    for i in order:
      row = row_of(known, VOCAB)
      if (row, i) not in met:
        met.add((row, i))
        logits[row, i] = rng.normal(size=VOCAB) * 1.5
      own = logits[row, i]
      total += own[TEXT[i]] - math.log(np.exp(own).sum())
      known[i] = TEXT[i]
  return dict(logits=logits), total / len(ORDERS)


def canvas_of(rows=1):
  token = jnp.tile(jnp.array(TEXT, jnp.int32), (rows, 1))
  is_target = jnp.ones_like(token, bool)
  return Canvas(token, jnp.broadcast_to(jnp.arange(LENGTH), token.shape), ~is_target, is_target)


def ranks():
  return np.argsort(np.array(ORDERS), axis=1).astype(np.int32) + 1


def test_the_bound_is_the_mean_over_orders():
  tables, mean = walked()
  assert mean == pytest.approx(KNOWN, abs=1e-9)
  with jax.enable_x64(True):
    found = exact_masked_bound(NETWORK, jax.tree.map(jnp.asarray, tables), canvas_of())
  assert found[0] == pytest.approx(mean, abs=1e-12)
  each = log_likelihood(NETWORK, tables, canvas_of(len(ORDERS)), ranks()).sum(axis=1)
  assert each.mean() == pytest.approx(mean, abs=1e-5)
  # The mixture over orders is a law too, and its likelihood is above its bound.
  assert np.log(np.mean(np.exp(each))) > mean + 0.5
  assert each.std() > 0.1, "the orders agree: the identity would be empty"


@pytest.mark.parametrize(
  ("clean", "slope"),
  [
    (lambda t: 1 - t, lambda t: -np.ones_like(t)),
    (lambda t: 1 - np.cos(np.pi / 2 * (1 - t)), lambda t: -np.pi / 2 * np.sin(np.pi / 2 * (1 - t))),
    (lambda t: 1 - t**2, lambda t: -2 * t),
  ],
  ids=["linear", "cosine", "square"],
)
def test_every_schedule_gives_one_weight_a_subset(clean, slope):
  """The integral over time of MDLM's weight and of the chance that just these are masked."""
  node, weight = np.polynomial.legendre.leggauss(60)
  t, weight = (node + 1) / 2, weight / 2
  for targets in (1, 4, 7):
    for masked in range(1, targets + 1):
      a = clean(t)
      chance = (1 - a) ** masked * a ** (targets - masked)
      integral = float(weight @ (-slope(t) / (1 - a) * chance))
      assert integral == pytest.approx(weight_of_subset(targets, masked), rel=1e-9)
  # A weight without the schedule's slope is no likelihood bound, whatever it is good for.
  assert float(weight @ (1 - clean(t))) != pytest.approx(weight_of_subset(4, 1), rel=1e-2)


def test_the_estimate_is_unbiased():
  tables, mean = walked()
  estimate, error = sampled_masked_bound(NETWORK, tables, canvas_of(), samples=4000, batch=500)
  assert error[0] < 0.06 and abs(estimate[0] - mean) < 4 * error[0]
  # Few samples a time, so that a stratum holds several numbers: the mean of many is the same.
  few, _ = sampled_masked_bound(NETWORK, tables, canvas_of(500), samples=3, batch=500)
  assert abs(few.mean() - mean) < 4 * few.std() / np.sqrt(500)


def test_of_a_transformer_the_orders_mean_is_near_the_bound_and_not_it(tiny):
  """A decided token has seen fewer entries than a given one: conditionals of more than a set."""
  model, params = tiny
  canvas = make_canvas(model.config, np.array([[*TEXT, 0]]), np.array([[True] * 4 + [False]]))
  bound = exact_masked_bound(model, params, canvas)[0]
  repeated = jax.tree.map(lambda x: jnp.repeat(x, len(ORDERS), axis=0), canvas)
  rank = np.pad(ranks(), ((0, 0), (1, 1)))
  mean = log_likelihood(model, params, repeated, rank).sum(axis=1).mean()
  assert 1e-3 < abs(mean - bound) < 0.2 * abs(bound)
  estimate, error = sampled_masked_bound(model, params, canvas, samples=640)
  assert abs(estimate[0] - bound) < 4 * error[0]


def test_refusals(tiny):
  model, params = tiny
  wide = make_canvas(model.config, np.zeros((1, 13), int), np.ones((1, 13), bool))
  with pytest.raises(ValueError, match="13 target entries have too many subsets"):
    exact_masked_bound(model, params, wide)
  with pytest.raises(ValueError, match="samples must be at least 1"):
    sampled_masked_bound(model, params, wide, samples=0)
  with pytest.raises(ValueError, match="asks for nothing"):
    exact_masked_bound(model, params, wide.replace(is_target=wide.is_target & False))
  with pytest.raises(ValueError, match="asked tokens are outside 0..2"):
    exact_masked_bound(model, params, wide.replace(token=wide.token - wide.is_target))
  with pytest.raises(ValueError, match="0 of 4 entries masked"):
    weight_of_subset(4, 0)
