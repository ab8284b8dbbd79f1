"""Wrong combinations of verifier and draft raise before anything is compiled."""

import jax
import jax.numpy as jnp
import pytest

from mtjax.trees import chain, k_ary
from mtjax.types import Draft, DraftScheme, TokenTree
from mtjax.verify import VERIFIERS, check, verify
from mtjax.verify.rules.threshold import threshold
from mtjax.verify.rules.typical import typical

VOCAB = 4


def draft(topology, scheme, vocab=VOCAB):
  def column(values):
    return jnp.tile(jnp.asarray(values, jnp.int32), (2, 1))

  tree = TokenTree(
    token=column([0] * topology.size),
    parent=column(topology.parent),
    depth=column(topology.depth),
    order=column(topology.order),
    valid=jnp.ones((2, topology.size), bool),
    height=topology.height,
    breadth=topology.breadth,
  )
  q = None if vocab is None else jnp.full((2, topology.size, vocab), 1 / vocab)
  return Draft(tree, scheme, q)


BINARY = k_ary((2, 2))


@pytest.mark.parametrize(
  ("name", "given", "message"),
  [
    (
      "rrs_with",
      draft(BINARY, DraftScheme.WITHOUT_REPLACEMENT),
      "rrs_with is exact for draft scheme with-replacement, this draft has without-replacement; "
      "use sample_match or delta or rrs_without or traversal",
    ),
    (
      "rrs_without",
      draft(BINARY, DraftScheme.DELTA, None),
      "rrs_without is exact for draft scheme with-replacement or without-replacement, this draft "
      "has delta; use sample_match or delta",
    ),
    (
      "spechub",
      draft(BINARY, DraftScheme.GREEDY_PLUS_ONE),
      "spechub is exact for draft scheme pair, this draft has greedy-plus-one; use sample_match "
      "or delta or greedy_plus_one",
    ),
    (
      "block",
      draft(BINARY, DraftScheme.WITH_REPLACEMENT),
      "block takes chains, but this tree has up to 2 children per node: it judges one chain "
      "as a whole; use traversal",
    ),
    (
      "chain",
      draft(BINARY, DraftScheme.WITH_REPLACEMENT),
      "chain takes chains, but this tree has up to 2 children per node: it tries one draft per "
      "position; use rrs_with, rrs_without or delta",
    ),
    (
      "chain",
      draft(chain(2), DraftScheme.DELTA),
      "chain is exact for draft scheme greedy-plus-one or with-replacement or without-replacement, "
      "this draft has delta; use sample_match or delta",
    ),
    (
      "traversal",
      draft(BINARY, DraftScheme.WITHOUT_REPLACEMENT, None),
      "traversal needs the probabilities q that the drafts were sampled from; without them use "
      "delta or sample_match",
    ),
    (
      "spechub",
      draft(k_ary((3,)), DraftScheme.PAIR),
      "a pair is two children, but this tree has up to 3 per node; for more use greedy-plus-one",
    ),
    (
      "rrs",
      draft(BINARY, DraftScheme.DELTA),
      "no verifier 'rrs'; there are block, chain, delta, greedy,",
    ),
  ],
)
def test_verifier_and_draft(name, given, message):
  with pytest.raises(ValueError, match=message.replace("(", r"\(")):
    check(name, given)


@pytest.mark.parametrize(
  ("nodes", "vocab", "message"),
  [
    (6, VOCAB, r"processed_logits are for \(2, 6\) rows and nodes, but the tree has \(2, 7\)"),
    (7, 9, "scatter q into the target's vocabulary of 9 .zeros elsewhere., or use delta"),
  ],
)
def test_shapes(nodes, vocab, message):
  keys = jax.random.split(jax.random.key(0), 2)
  given = draft(BINARY, DraftScheme.WITHOUT_REPLACEMENT)
  with pytest.raises(ValueError, match=message):
    verify("rrs_without", jnp.zeros((2, nodes, vocab)), given, keys, jnp.zeros(2, jnp.int32))


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: threshold(single=0.0, cumulative=1.0), "single must be above 0 and at most 1"),
    (lambda: threshold(single=1.0, cumulative=1.5), "cumulative must be above 0 and at most 1"),
    (lambda: typical(epsilon=2.0), "epsilon must be above 0 and at most 1, got 2.0"),
  ],
)
def test_parameters(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_one_child_per_node_is_one_sample_under_every_sampled_scheme():
  for name in ("rrs_with", "rrs_without", "kseq", "greedy_plus_one", "traversal", "block"):
    for scheme in (
      DraftScheme.WITH_REPLACEMENT,
      DraftScheme.WITHOUT_REPLACEMENT,
      DraftScheme.GREEDY_PLUS_ONE,
    ):
      check(name, draft(chain(3), scheme))


def test_every_draft_scheme_has_an_exact_verifier_that_uses_it():
  for scheme in DraftScheme:
    assert any(
      scheme in v.schemes and v.needs_q != (scheme is DraftScheme.DELTA) for v in VERIFIERS.values()
    )
