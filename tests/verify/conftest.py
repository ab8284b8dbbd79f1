"""Twenty random pairs of target and draft probs over three tokens, and trees to draft with."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mtjax.evaluate import exactness
from mtjax.trees import chain, encodings, k_ary
from tests.compiled import RUNS_LONG

VOCAB, PAIRS, LENGTH = 3, 20, 4

TREES = {
  "chain": chain(3),
  "binary": k_ary((2, 2)),
  "uneven": encodings.from_parents([-1, 0, 0, 1, 1, 2]),
  "wide": encodings.from_parents([-1, 0, 0, 0, 1, 2]),
}


def _contexts():
  out = [()]
  for context in out:
    if len(context) < LENGTH:
      out += [(*context, token) for token in range(VOCAB)]
  return out


def _probs(seed, context, base=None):
  # The hash is part of the random models whose expected tokens the tests know.
  rng = np.random.default_rng(hash((seed, *context)) % 2**32)
  probs = rng.dirichlet(np.full(VOCAB, 0.7))
  probs = (probs if base is None else 0.5 * probs + 0.5 * base) + 1e-3
  return probs / probs.sum()


@functools.cache
def _compiled(procedure):
  return jax.jit(jax.vmap(procedure.outcome), compiler_options=RUNS_LONG)


@pytest.fixture(scope="module", autouse=True)
def _quick_enumerations():
  """Enumerations run thousands of drafts through a program, again and again."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(exactness, "_compiled", _compiled)
    yield


@pytest.fixture(scope="session")
def models():
  """p, q [pairs, contexts, V]: q is half p and half noise."""
  contexts = _contexts()
  p = np.array([[_probs(1000 + s, c) for c in contexts] for s in range(PAIRS)])
  q = np.array(
    [[_probs(5000 + s, c, p[s, i]) for i, c in enumerate(contexts)] for s in range(PAIRS)]
  )
  return SimpleNamespace(p=p, q=q)


@pytest.fixture(scope="session")
def trees():
  return TREES
