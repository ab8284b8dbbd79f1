"""Every lossless verifier keeps the stepwise constrained distribution, enumerated in float64.

The masks are those of the code that decoding runs; what they must be comes from a list of all
accepted texts.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.constraints import join
from mtjax.decode import speculative
from mtjax.evaluate.exactness import (
  _rows,
  _tree,
  emitted_by,
  enumerate_drafts,
  first,
  random_probs,
  target_probs,
  total_variation,
)
from mtjax.sampling.constraint import Place
from mtjax.sampling.logits import History, Rules, process
from mtjax.trees import chain, k_ary
from mtjax.types import Draft, DraftScheme, Exactness
from mtjax.verify import VERIFIERS
from tests.constraints.toys import complete_texts, dfa_of

VOCAB, EOS, LENGTH, PAIRS = 3, 2, 3, 6
# (0 1 | 1)*, whose texts may end after any 1: the path decides what may follow.
DFA = dfa_of([{0: 1, 1: 0}, {1: 0}], {0}, VOCAB)
TREES = {"chain": chain(2), "binary": k_ary((2, 2))}
CASES = [
  pytest.param(name, scheme, id=f"{name}-{scheme.value}")
  for name, verifier in VERIFIERS.items()
  if verifier.exactness is Exactness.LOSSLESS
  for scheme in sorted(verifier.schemes, key=lambda scheme: scheme.value)
]


def tables(seed):
  return random_probs(np.random.default_rng(seed), PAIRS, VOCAB, LENGTH + 1)


def constrained(p):
  """p over the tokens after which some accepted text of LENGTH tokens is possible."""
  prefixes = {text[:n] for text in complete_texts(DFA, LENGTH, VOCAB, EOS) for n in range(1, 4)}
  out = p.copy()
  contexts = [()]
  for number, context in enumerate(contexts):
    if number >= first(VOCAB, LENGTH):
      break
    contexts += [(*context, token) for token in range(VOCAB)]
    allowed = [(*context, token) in prefixes for token in range(VOCAB)]
    if any(allowed):  # contexts that cannot be completed are never reached
      out[:, number] *= allowed
  return out / out.sum(axis=-1, keepdims=True)


@functools.partial(jax.jit, static_argnums=0)
def masked_probs(spoil, logits, tree, automata):
  rows = logits.shape[0]
  rules = Rules(temperature=jnp.ones(rows), constraint=automata)
  history = History(None, None, automata.start(jnp.full(rows, LENGTH, jnp.int32)))
  seen = speculative._histories(history, tree, automata)
  processed = process(logits, rules, seen.replace(place=spoil().place(seen.place, tree)))
  return jax.nn.softmax(spoil().logits(processed, logits), axis=-1)


def masked(p_rows, tree, spoil):
  """The target's distribution at each node as `Speculative.judge` computes it, in float64."""
  rows = len(p_rows)
  automata = join(DFA, [LENGTH] * rows, VOCAB, [EOS])
  with jax.enable_x64(True), np.errstate(divide="ignore"):
    return np.asarray(masked_probs(spoil, np.log(p_rows), tree, automata))


class Honest:
  """No fault."""

  def place(self, place, tree):
    return place

  def logits(self, processed, raw):
    return processed


class NoMaskAtOneNode(Honest):
  def logits(self, processed, raw):
    return processed.at[:, 1].set(raw[:, 1])


class StateOfTheParent(Honest):
  def place(self, place, tree):
    parent = jnp.maximum(tree.parent, 0)
    return Place(jnp.take_along_axis(place.state, parent, axis=1), place.left)


class TokensLeftOfTheRoot(Honest):
  def place(self, place, tree):
    return place.replace(left=jnp.broadcast_to(place.left[:, :1], place.left.shape))


def distance(name, scheme, shape, spoil):
  topology = TREES[shape]
  p, q = tables(1), tables(2)
  drafts = enumerate_drafts(topology, scheme, q)
  p_rows, q_rows = _rows(topology, drafts, p, q, topology.size)
  tree = _tree(topology, drafts.token, topology.size, topology.height, topology.breadth)
  p_rows = masked(p_rows, tree, spoil)
  with jax.enable_x64(True):
    draft = Draft(tree, scheme, jnp.asarray(q_rows))
  want = constrained(p)
  found = emitted_by(VERIFIERS[name], drafts, draft, p_rows, want, topology.height)
  return total_variation(found.probs, target_probs(want, LENGTH)).max(), found.probs


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_verified_trees_keep_the_constrained_distribution(name, scheme):
  shape = "chain" if VERIFIERS[name].chains_only else "binary"
  off, probs = distance(name, scheme, shape, Honest)
  assert off <= 1e-12
  accepted = {
    sum(token * VOCAB ** (LENGTH - 1 - place) for place, token in enumerate(text))
    for text in complete_texts(DFA, LENGTH, VOCAB, EOS)
  }
  assert set(np.flatnonzero(probs.max(axis=0) > 0)) == accepted


@pytest.mark.parametrize("spoil", [NoMaskAtOneNode, StateOfTheParent, TokensLeftOfTheRoot])
@pytest.mark.parametrize(
  ("name", "scheme"),
  [("sample_match", DraftScheme.DELTA), ("rrs_without", DraftScheme.WITHOUT_REPLACEMENT)],
)
def test_faults_of_one_node_are_caught(name, scheme, spoil):
  assert distance(name, scheme, "binary", spoil)[0] > 1e-3


def test_it_is_not_the_distribution_given_that_the_text_is_accepted():
  """Stepwise masking gives another distribution over whole texts, as the docs say."""
  p = tables(1)
  joint = target_probs(p, LENGTH)
  kept = target_probs(constrained(p), LENGTH) > 0
  given = joint * kept / (joint * kept).sum(axis=1, keepdims=True)
  assert total_variation(given, target_probs(constrained(p), LENGTH)).max() > 0.01
