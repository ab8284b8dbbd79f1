"""Sampled siblings follow their joint distribution, and stop where q has no more tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.evaluate.exactness import enumerate_drafts, p_value
from mtjax.trees import k_ary
from mtjax.trees.siblings import siblings, top_k_siblings
from mtjax.types import DraftScheme

DRAWN = [scheme for scheme in DraftScheme if scheme is not DraftScheme.DELTA]
VOCAB, ROWS = 4, 40_000
Q = np.array([0.15, 0.4, 0.1, 0.35])


@functools.partial(jax.jit, static_argnames=("scheme", "count"))
def draw(scheme, q, keys, warm, count):
  logits = jnp.log(q)
  return siblings(scheme, logits, q, count, keys, warm)


def sampled(scheme, q=Q, warm=True):
  """[ROWS, 2, children] tokens and validity of two nodes, of which the second has two children."""
  children = 2 if scheme is DraftScheme.PAIR else 3
  q = jnp.broadcast_to(jnp.asarray(q, jnp.float32), (ROWS, 2, VOCAB))
  keys = jax.random.split(jax.random.key(7), ROWS)
  found = draw(scheme, q, keys, jnp.full((ROWS,), warm), (children, 2))
  return (*(np.asarray(x) for x in found), children)


def joint(scheme, children):
  """Probability of each tuple of children, from a sequential enumeration."""
  drafts = enumerate_drafts(k_ary((children,)), scheme, Q[None, None])
  place = drafts.token[:, 1:] @ VOCAB ** np.arange(children)
  return np.bincount(place, drafts.weight, minlength=VOCAB**children)


@pytest.mark.parametrize("scheme", DRAWN)
def test_siblings_follow_their_joint_distribution(scheme):
  """Each of the two nodes, and both are independent."""
  token, valid, children = sampled(scheme)
  assert valid[:, 0].all() and valid[:, 1, :2].all()
  first = token[:, 0] @ VOCAB ** np.arange(children)
  second = token[:, 1, :2] @ VOCAB ** np.arange(2)
  assert p_value(first, joint(scheme, children)) > 1e-3
  assert p_value(second, joint(scheme, 2)) > 1e-3
  both = np.outer(joint(scheme, children), joint(scheme, 2)).ravel()
  assert p_value(first * VOCAB**2 + second, both) > 1e-3


@pytest.mark.parametrize("scheme", [DraftScheme.WITHOUT_REPLACEMENT, DraftScheme.PAIR])
def test_siblings_in_another_order_are_noticed(scheme):
  token = sampled(scheme)[0][:, 1, :2]
  by_q = np.take_along_axis(token, np.argsort(-Q[token], axis=1), axis=1)
  assert p_value(by_q @ VOCAB ** np.arange(2), joint(scheme, 2)) < 1e-6


@pytest.mark.parametrize("scheme", DRAWN)
@pytest.mark.parametrize("q", [(0, 0.3, 0, 0.7), (0, 0, 1.0, 0)])
def test_where_q_runs_out_siblings_are_missing(scheme, q):
  token, valid, children = sampled(scheme, q)
  token, valid = token[:, 0], valid[:, 0]
  assert (np.asarray(q)[token] > 0)[valid].all() and valid[:, 0].all()
  if scheme is DraftScheme.WITH_REPLACEMENT:
    assert valid.all()
  else:
    assert (valid.sum(axis=1) == min(np.count_nonzero(q), children)).all()
    different = np.sort(np.where(valid, token, -1 - np.arange(children)), axis=1)
    assert np.diff(different, axis=1).all(), "siblings are equal"


@pytest.mark.parametrize("scheme", DRAWN)
def test_rows_that_do_not_sample_get_the_most_probable_tokens(scheme):
  token, valid, children = sampled(scheme, warm=False)
  assert valid[:, 0].all() and (token[:, 0] == [1, 3, 0][:children]).all()


def test_the_likeliest_are_in_order_the_lowest_id_of_equals_first():
  token, valid = top_k_siblings(jnp.array([[[0.5, -jnp.inf, 2.0, 2.0]]]), 4)
  assert token.tolist() == [[[2, 3, 0, 1]]] and valid.tolist() == [[[True, True, True, False]]]
  with pytest.raises(ValueError, match="scheme delta are not sampled: use top_k_siblings"):
    sampled(DraftScheme.DELTA)
