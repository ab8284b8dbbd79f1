"""Negative controls: mistakes found in public code, made on purpose, are seen by the enumeration.

Means and maxima of the total variation on the binary tree are those of a separate enumeration in
plain numpy.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.evaluate.exactness import emitted, target_probs, total_variation
from mtjax.types import DraftScheme, Exactness
from mtjax.verify import Verifier
from mtjax.verify.plan import Plan, leaves_first
from mtjax.verify.probs import difference, normalise, ratio, without, without_tokens
from mtjax.verify.procedure import Outcome, Procedure, children
from mtjax.verify.rules.block import block
from mtjax.verify.rules.delta import delta
from mtjax.verify.rules.rrs import with_replacement, without_replacement
from mtjax.verify.rules.traversal import traversal
from mtjax.verify.walk import Coupling, walk

SIZE, HEIGHT, BREADTH = 7, 3, 3


def sorted_by_q(p, q, token, valid):
  """Siblings are tried with the most probable first."""
  place = jnp.argsort(jnp.where(valid, -q[token], jnp.inf))
  found = without_replacement(p, q, token[place], valid[place])
  return Coupling(jnp.zeros_like(found.accept).at[place].set(found.accept), found.residual)


def pruned(p, q, token, valid):
  """Only the most probable one of the sampled siblings is kept."""
  best = jnp.argmax(jnp.where(valid, q[token], -1))
  return without_replacement(p, q, token, valid & (jnp.arange(token.size) == best))


def residual_from_p(p, q, token, valid):
  """After a refusal the token comes from p instead of the residual."""
  return Coupling(without_replacement(p, q, token, valid).accept, p)


def counting_twice(p, q, token, valid):
  """One coin against the children's summed p, equal siblings and all."""
  reach = jnp.minimum(jnp.cumsum(jnp.where(valid, p[token], 0)), 1)
  rest = normalise(without_tokens(p, token, valid), p)
  return Coupling(jnp.diff(reach, prepend=jnp.zeros_like(reach[:1])), rest)


def tried_again(p, q, token, valid):
  """Independent drafts as if without replacement; a repetition's 0 / 0 counts as acceptance."""
  left, accept = 1.0, []
  for c in range(token.size):
    x = token[c]
    take = jnp.where(valid[c], left * jnp.where(q[x] > p[x], ratio(p[x], q[x]), 1), 0)
    p, q = jnp.where(valid[c], difference(p, q), p), jnp.where(valid[c], without(q, x), q)
    left, accept = left - take, [*accept, take]
  return Coupling(jnp.stack(accept), p)


def bonus_redrawn(p, q, token, valid):
  """After a sample that no child matches, the sample is dropped and another one is sampled."""
  return Coupling(delta(p, q, token, valid).accept, p)


def division_of_one(p, q, token, valid):
  """Independent drafts, each accepted as if it were the only one, one residual."""
  left, accept = 1.0, []
  for c in range(token.size):
    take = jnp.where(valid[c], left * ratio(p[token[c]], q[token[c]]), 0)
    left, accept = left - take, [*accept, take]
  return Coupling(jnp.stack(accept), difference(p, q))


def draws_per_path(p, draft):
  """Every path of the binary tree draws for itself; the longest match wins, then a fresh token."""
  tree, paths = draft.tree, ((1, 3), (1, 4), (2, 5), (2, 6))
  first = [p[0][tree.token[a]] for a, _ in paths]
  second = [p[a][tree.token[b]] for a, b in paths]
  stop = jnp.zeros(p.shape[0], p.dtype)
  for lengths in itertools.product(range(3), repeat=len(paths)):
    chance = 1.0
    for length, f, s in zip(lengths, first, second, strict=True):
      chance = chance * ((1 - f) if length == 0 else f * (1 - s) if length == 1 else f * s)
    longest = int(np.argmax(lengths))
    stop = stop.at[(0, *paths[longest])[lengths[longest]]].add(chance)
  return Outcome(stop, p)


def forgetting_weights(target_probs, draft):
  """Block verification whose residual is (p - q)+ instead of (P p - q)+."""
  right = block(target_probs, draft)

  def emit(node):
    _, _, valid = children(draft.tree, node)
    return jnp.where(valid[0], difference(target_probs(node), draft.q[node]), target_probs(node))

  return Plan(right.stop, emit)


def elder_first(target_probs, draft):
  """Traversal that visits siblings in another order than they were sampled in."""
  tree = draft.tree
  last = jnp.zeros(SIZE + 1, jnp.int32).at[tree.parent].max(jnp.where(tree.valid, tree.order, 0))
  return traversal(
    target_probs, draft.replace(tree=tree.replace(order=last[tree.parent] - tree.order))
  )


def variation(procedure, tree, scheme, models):
  verifier = Verifier(procedure, Exactness.LOSSLESS, frozenset(DraftScheme), "a mistake")
  breadth = 1 if tree.breadth == 1 else BREADTH
  found = emitted(verifier, tree, scheme, models.p, models.q, pad=(SIZE, HEIGHT, breadth))
  return total_variation(found.probs, target_probs(models.p, tree.height + 1))


WITH, WITHOUT, DELTA = (
  DraftScheme.WITH_REPLACEMENT,
  DraftScheme.WITHOUT_REPLACEMENT,
  DraftScheme.DELTA,
)


@pytest.mark.parametrize(
  ("procedure", "scheme", "mean", "largest"),
  [
    pytest.param(walk(with_replacement), WITHOUT, 0.0167, 0.0665, id="q-not-renormalised"),
    pytest.param(walk(tried_again), WITH, 0.1269, 0.1947, id="equal-siblings-tried-again"),
    pytest.param(walk(sorted_by_q), WITHOUT, 0.2720, 0.3877, id="sorted"),
    pytest.param(walk(pruned), WITHOUT, 0.2708, 0.3877, id="pruned"),
    pytest.param(walk(without_replacement), DELTA, 0.4124, 0.6376, id="top-k-as-sampled"),
    pytest.param(walk(residual_from_p), WITHOUT, 0.0362, 0.0707, id="residual-from-p"),
    pytest.param(walk(counting_twice), WITH, 0.0822, 0.2111, id="equal-siblings-twice"),
    pytest.param(walk(bonus_redrawn), DELTA, 0.1652, 0.2836, id="bonus-redrawn"),
    pytest.param(
      Procedure(lambda *_: None, draws_per_path), DELTA, 0.2150, 0.3126, id="draw-per-path"
    ),
  ],
)
def test_known_mistakes_cost_what_they_cost(procedure, scheme, mean, largest, models, trees):
  off = variation(procedure, trees["binary"], scheme, models)
  assert (off.mean(), off.max()) == pytest.approx((mean, largest), abs=6e-5)


@pytest.mark.parametrize(
  ("procedure", "shape", "scheme"),
  [
    pytest.param(walk(division_of_one), "binary", WITH, id="kseq-with-rho-1"),
    pytest.param(leaves_first(forgetting_weights), "chain", WITHOUT, id="block-residual"),
    pytest.param(leaves_first(elder_first), "binary", WITHOUT, id="traversal-order"),
  ],
)
def test_other_mistakes_are_seen(procedure, shape, scheme, models, trees):
  assert variation(procedure, trees[shape], scheme, models).mean() > 1e-3
