"""Choices by past rounds keep the distribution of sampled texts; choices by the drafts do not."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mtjax.decode.generation import generate
from mtjax.decode.planned import Arm, Planned
from mtjax.decode.speculative import Speculative
from mtjax.draft import ShapedTree
from mtjax.sampling.logits import Sampling
from mtjax.trees import chain, k_ary
from mtjax.tuning.online.chooser import NextRounds, ScriptedChooser
from tests.draft.two_rounds import (
  DRAFT,
  LENGTH,
  PROMPT,
  TARGET,
  VOCAB,
  WARMTH,
  model,
  p_value,
)

ROWS = 8_000


def texts(make):
  """Returns texts whose second round is decided by what the first one accepted."""
  small, small_params = model(DRAFT)
  drafter = make(small, size=5, depth=2, children=2)
  method = Planned((Arm("tree", Speculative(drafter, "traversal"), (5,), drafter),))

  def script(number):
    if number == 0:
      return NextRounds(1, k_ary((2, 1)), 1)
    _, report, _ = chooser.reports[-1]
    often = report.counts.accepted[0].sum() > 0.3 * report.counts.rounds
    return NextRounds(1, chain(2), 1) if often else NextRounds(0, chain(0), 1)

  chooser = ScriptedChooser(script)
  out = generate(
    *model(TARGET), [PROMPT] * ROWS, max_tokens=LENGTH, sampling=Sampling(temperature=WARMTH),
    key=0, method=method, method_params=(chooser.handle, (small_params,)),
  )  # fmt: skip
  return np.array(out.tokens) @ VOCAB ** np.arange(LENGTH)[::-1]


@dataclasses.dataclass(frozen=True)
class Anticipating(ShapedTree):
  """A drafter whose shape depends on its own tokens: it leaves out those that are improbable."""

  def propose(self, params, state, context):
    draft, state = super().propose(params, state, context)
    tree = draft.tree
    row, above = jnp.arange(tree.token.shape[0])[:, None], jnp.maximum(tree.parent, 0)
    sure = (draft.q[row, above, tree.token] > 0.3) | (tree.depth == 0)
    valid = tree.valid & sure & sure[row, above]
    return draft.replace(tree=tree.replace(valid=valid)), state


def test_choices_by_past_rounds_keep_the_distribution():
  assert p_value(texts(ShapedTree)) > 1e-3


def test_a_shape_that_depends_on_its_own_drafts_is_seen():
  assert p_value(texts(Anticipating)) < 1e-6
