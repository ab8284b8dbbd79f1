"""Twenty random pairs of target and draft probs over three tokens, and trees to draft with."""

from types import SimpleNamespace

import numpy as np
import pytest

from mtjax.trees import chain, encodings, k_ary

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
