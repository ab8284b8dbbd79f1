"""Trees of a draft model through the whole loop: the target's distribution over two rounds."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.decode.generation import generate
from mtjax.draft import BestFirst, GrownTree, ModelTree
from mtjax.trees import k_ary
from mtjax.types import DraftScheme
from tests.draft.drafters import SMALL
from tests.draft.two_rounds import (
  CHUNK,
  CHUNKS,
  LENGTH,
  PROMPT,
  TARGET,
  VOCAB,
  WARMTH,
  model,
  p_value,
  texts,
)

GREEDY = 64  # rows of a batch that do not sample


def tree(scheme):
  return lambda small: ModelTree(small, k_ary((2, 2)), scheme)


# Each scheme with the verifier that accepts its drafts most often.
CASES = {
  "without": (tree(DraftScheme.WITHOUT_REPLACEMENT), "traversal"),
  "grown": (lambda small: GrownTree(small, size=4, depth=2, children=3, step=2), "traversal"),
  "grown one by one": (lambda small: GrownTree(small, 3, 2, 2, 1), "rrs_without"),
  "with": (tree(DraftScheme.WITH_REPLACEMENT), "traversal"),
  "with, kseq": (tree(DraftScheme.WITH_REPLACEMENT), "kseq"),
  "greedy plus one": (tree(DraftScheme.GREEDY_PLUS_ONE), "greedy_plus_one"),
  "pair": (tree(DraftScheme.PAIR), "spechub"),
  "likeliest": (tree(DraftScheme.DELTA), "delta"),
  "likeliest paths": (lambda small: BestFirst(small, 2, 2, 5), "delta"),
}
FAST = ("without", "grown")


def check(name, chunks):
  drafter, verifier = CASES[name]
  temperature = [0.0] * GREEDY + [WARMTH] * CHUNK
  given = dict(rows=GREEDY + CHUNK, temperature=temperature)
  found = [texts(drafter, verifier, key=key, **given) for key in range(chunks)]
  plain = generate(*model(TARGET), [PROMPT], max_tokens=LENGTH).tokens[0]
  greedy = np.array([chunk[:GREEDY] for chunk in found])
  assert (greedy == plain @ VOCAB ** np.arange(LENGTH)[::-1]).all(), "greedy rows are not greedy"
  assert p_value(np.concatenate([chunk[GREEDY:] for chunk in found])) > 1e-3


@pytest.mark.parametrize("name", FAST)
def test_texts_follow_the_targets_distribution(name):
  """Large enough for a total variation of 0.05; a part of the batch is greedy."""
  check(name, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_texts_follow_the_targets_distribution_closely(name):
  """Large enough for 0.02."""
  check(name, CHUNKS)


@dataclasses.dataclass(frozen=True)
class Sorted(ModelTree):
  """A drafter that orders siblings by q, not in the order of sampling."""

  def propose(self, params, state, context):
    draft, state = super().propose(params, state, context)
    tree, above = draft.tree, jnp.maximum(draft.tree.parent, 0)
    row = jnp.arange(tree.token.shape[0])[:, None]
    q = draft.q[row, above, tree.token]
    siblings = (tree.parent[:, :, None] == tree.parent[:, None]) & tree.valid[:, None]
    order = jnp.sum(siblings & (q[:, None] > q[:, :, None]), axis=2)
    return draft.replace(tree=tree.replace(order=order)), state


@dataclasses.dataclass(frozen=True)
class Flat(ModelTree):
  """A drafter that reports a flatter q than the one its drafts were sampled from."""

  def propose(self, params, state, context):
    draft, state = super().propose(params, state, context)
    flat = jnp.sqrt(draft.q)
    return draft.replace(q=flat / jnp.maximum(flat.sum(-1, keepdims=True), 1e-9)), state


@pytest.mark.parametrize("wrong", [Sorted, pytest.param(Flat, marks=pytest.mark.slow)])
def test_drafts_that_are_not_what_they_say_are_seen(wrong):
  assert p_value(texts(lambda small: wrong(small, k_ary((2, 2))), "traversal")) < 1e-6


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: ModelTree(SMALL, k_ary(())), "a tree of the root alone drafts nothing"),
    (
      lambda: ModelTree(SMALL, k_ary((13,))),
      "takes 13 tokens after one node, but the vocabulary has",
    ),
    (lambda: ModelTree.of_names(SMALL, "medusa"), "no tree 'medusa': give one of medusa_63, eagle"),
    (lambda: ModelTree.of_names(SMALL, scheme="top-k"), "'top-k' is not a valid DraftScheme"),
    (lambda: BestFirst(SMALL, width=0), "width must be at least 1, got 0"),
    (lambda: BestFirst(SMALL, width=13), "width .13. must be at most the vocabulary, 12 tokens"),
    (
      lambda: BestFirst(SMALL, 2, 2, 7),
      "must be at most width . .depth - 1. width..2 = 6",
    ),
    (lambda: BestFirst(SMALL, threshold=-1.0), "threshold must be at least 0, got -1.0"),
    (lambda: GrownTree(SMALL, step=0), "step must be at least 1, got 0"),
    (lambda: GrownTree(SMALL, children=13), "children .13. must be at most the vocabulary, 12 "),
  ],
)
def test_settings_out_of_range(make, message):
  with pytest.raises(ValueError, match=message):
    make()
