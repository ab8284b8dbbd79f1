"""Every method's law, enumerated: the sequential joint, whatever the window; and its passes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.anysubset.enumerate_fill import law_of
from tests.anysubset.table_network import TableNetwork, conditional, random_tables, sequential_law

from mtjax.anysubset import passes
from mtjax.anysubset.canvas import Canvas
from mtjax.anysubset.methods import ContextNGram, Fused, Sequential, SelfDraft
from mtjax.anysubset.state import Problem
from mtjax.sampling import Rules

VOCAB, LENGTH = 2, 6
ORDER = (0, 2, 3, 5)  # asked, ascending; 1 and 4 are given
GIVEN = {1: 1, 4: 0}

NETWORK = TableNetwork(VOCAB, LENGTH)
TABLES = random_tables(np.random.default_rng(0), VOCAB, LENGTH, scale=1.5)
METHODS = [
  Sequential(),
  *(SelfDraft(k, bonus) for k in (1, 2, 3, 4) for bonus in (False, True)),
  *(Fused(k) for k in (1, 2, 3, 4)),
  *(ContextNGram(k) for k in (1, 2, 3, 4)),
  SelfDraft(4, verifier="block"),
  Fused(3, verifier="block"),
]


def make_problem(order=ORDER, given=None, length=LENGTH, temperature=1.0):
  given = GIVEN if given is None else given
  token, is_given, asked = np.zeros(length, int), np.zeros(length, bool), np.zeros(length, bool)
  for i, x in given.items():
    token[i], is_given[i] = x, True
  asked[list(order)] = True
  row = [jnp.asarray(x)[None] for x in (token, np.arange(length), is_given, asked)]
  canvas = Canvas(row[0].astype(jnp.int32), row[1].astype(jnp.int32), *row[2:])
  return Problem(
    canvas,
    jnp.asarray([order], jnp.int32),
    jnp.array([len(order)], jnp.int32),
    Rules(temperature=jnp.array([temperature])),
    jax.random.key(0)[None],
  )


def distance(found, wanted):
  return 0.5 * sum(abs(found.get(text, 0.0) - p) for text, p in wanted.items())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_law_is_the_sequential_joint(method):
  found = law_of(method, NETWORK, TABLES, make_problem())
  wanted = sequential_law(TABLES, GIVEN, ORDER, VOCAB)
  assert distance(found.chance, wanted) < 1e-12
  # The theorem (2504.20456, thm. 1), and what each of ours keeps of it.
  assert max(found.passes) <= len(ORDER)
