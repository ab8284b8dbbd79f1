"""The credit of tokens, kept for those alone that have some, against credit for all of them."""

import jax
import numpy as np
import pytest

from mtjax.diffusion import DecidingPolicy
from mtjax.diffusion.order import Credit
from mtjax.diffusion.order.credit import CreditedTokens
from mtjax.diffusion.revise import EditTokens, Wino
from mtjax.diffusion.transfer import DreamCounts, LladaCounts, OneByOne, Threshold, WinoDraft
from tests.diffusion.views import make_view

BLOCKS, ROWS, SIZE, VOCAB = 2, 6, 5, 300
RNG = np.random.default_rng(3)
# Few tokens are probable, so that one is the argmax of several passes, and not one after the other.
LOGITS = RNG.normal(size=(BLOCKS, SIZE, ROWS, SIZE, VOCAB)).astype(np.float32)
LOGITS[..., RNG.choice(VOCAB, 3, replace=False)] += 6
DECAYS = np.linspace(0.5, 1.0, ROWS)


ORDER = RNG.permuted(np.tile(np.arange(SIZE), (BLOCKS, ROWS, 1)), axis=2)


def passes():
  """Yields the views of blocks whose passes close one position per row; the last row ends early."""
  for logits, order in zip(LOGITS, ORDER, strict=True):
    for step in range(SIZE):
      is_open = order >= step
      is_open[-1] &= step < 2
      yield make_view(logits[step], is_open=is_open, step=step)


def logits_of(rule, state):
  """Returns the logits with credit of each pass."""
  rule, prepare, logits = rule.for_rows(ROWS), jax.jit(type(rule).prepare), []
  for view in passes():
    view, state = prepare(rule, state, view)
    logits.append(view.logits)
  return np.array(logits)


def test_logits_are_those_of_credit_for_all_tokens():
  rule = Credit(decay=DECAYS)
  expected, listed, forgetful = (
    logits_of(rule, rule.start(ROWS, SIZE, VOCAB, waits)) for waits in (None, SIZE, 2)
  )
  np.testing.assert_allclose(listed, expected, rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(listed.argmax(-1), expected.argmax(-1))
  # The test sees a token that is forgotten.
  assert np.abs(forgetful - expected).max() > 0.1


@pytest.mark.parametrize(
  ("transfer", "revise", "listed"),
  [
    (Threshold(), None, True),
    (OneByOne(), None, True),
    (LladaCounts(), None, True),
    (DreamCounts(), None, False),
    (Threshold(), EditTokens(), False),
    (WinoDraft(), Wino(), False),
  ],
)
def test_positions_that_wait_for_any_number_of_passes_have_credit_for_all_tokens(
  transfer, revise, listed
):
  given = {} if revise is None else dict(revise=revise)
  state, _ = DecidingPolicy(Credit(), transfer, **given).start(ROWS, SIZE, VOCAB)
  assert isinstance(state, CreditedTokens) == listed
  assert all(
    leaf.shape == (ROWS, SIZE, SIZE if listed else VOCAB) for leaf in jax.tree.leaves(state)
  )
