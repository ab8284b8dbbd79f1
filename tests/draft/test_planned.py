"""Drafters, trees and plain rounds that are chosen while a program runs."""

import numpy as np
import pytest

from mtjax.decode.generation import generate
from mtjax.decode.planned import Arm, Planned
from mtjax.decode.speculative import Speculative
from mtjax.draft import ModelTree, ShapedChain, ShapedTree, SuffixStore, Trie
from mtjax.rounds import run as rounds
from mtjax.sampling.logits import Sampling
from mtjax.trees import chain, k_ary
from mtjax.tuning.online.chooser import NextRounds, ScriptedChooser
from mtjax.tuning.profiles import AcceptanceCounts, count_history
from tests.draft.drafters import (
  LIMITS,
  PARAMS,
  PROMPTS,
  RAGGED,
  SMALL,
  SMALL_PARAMS,
  TARGET,
  VOCAB,
)

WARM = Sampling(temperature=(0.0, 1.0, 0.5), repetition_penalty=1.3)
STORE = SuffixStore(VOCAB)
TRIE = Trie(size=6, depth=4)
TREE, CHAIN = ShapedTree(SMALL, size=9, depth=3), ShapedChain(SMALL, size=5)
ARMS = (
  Arm("suffix", Speculative(TRIE), (4,), late=TRIE),
  Arm("chain", Speculative(CHAIN), (5,), CHAIN),
  Arm("tree", Speculative(TREE), (9,), TREE),
)
ALL = Planned(ARMS)
SHAPES = [chain(0), chain(1), chain(2), k_ary((2,)), RAGGED, k_ary((1, 2, 1))]


def planned(script, method=ALL, prompts=PROMPTS, store=STORE, **settings):
  chooser = ScriptedChooser(script)
  given = {"chain": SMALL_PARAMS, "tree": SMALL_PARAMS, "suffix": store.handle}
  params = chooser.handle, tuple(given.get(arm.name) for arm in method.arms)
  settings = dict(max_tokens=LIMITS, sampling=WARM, key=3) | settings
  return generate(TARGET, PARAMS, prompts, method=method, method_params=params, **settings), chooser


def anything(seed):
  """Returns a script of random branches, shapes and numbers of rounds."""
  rng = np.random.default_rng(seed)
  return lambda _: NextRounds(
    int(rng.integers(len(ALL.branches) + 1)), SHAPES[rng.integers(1, 6)], int(rng.integers(1, 4))
  )


def test_text_is_that_of_plain_decoding_whatever_is_chosen_and_nothing_is_compiled_again():
  plain = generate(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, sampling=WARM, key=3)
  first, chooser = planned(anything(0))
  assert first.tokens == plain.tokens
  compiled = rounds.whole._cache_size()
  used = {order.branch for order, *_ in chooser.reports}
  for seed in range(1, 6):
    out, chooser = planned(anything(seed))
    assert out.tokens == plain.tokens
    assert out.counters["compile_seconds"] == 0.0
    used |= {order.branch for order, *_ in chooser.reports}
  assert rounds.whole._cache_size() == compiled
  assert used == set(range(len(ALL.branches) + 1)), "every branch was chosen"
  assert first.counters["accepted_at_depth"][0] > 0


class Reader(SuffixStore):
  """A store that remembers that it read something."""

  has_read = False

  def _learn(self, request, tokens):
    self.has_read = True
    super()._learn(request, tokens)


def test_a_store_reads_the_prompts_when_it_is_first_chosen_if_ever():
  plain = generate(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, sampling=WARM, key=3)
  for branch in (0, 1):
    store = Reader(VOCAB)
    orders = [NextRounds(one, chain(1), 2) for one in (0, 0, branch)]
    out, chooser = planned(lambda number, orders=orders: orders[min(number, 2)], store=store)
    assert out.tokens == plain.tokens
    assert {order.branch for order, *_ in chooser.reports} == {0, branch}
    assert store.has_read == (branch == 1)


def drafted(history):
  """Returns everything but probabilities, which are rounded otherwise in a larger pass."""
  return [
    row and (row.tokens, row.parents, row.path, row.bonus)
    for record in history
    for row in record.rows
  ]


@pytest.mark.parametrize(
  "shape", [RAGGED, pytest.param(k_ary((2, 1)), marks=pytest.mark.slow)], ids=["ragged", "regular"]
)
def test_trees_whose_shape_is_data_are_those_of_a_fixed_shape(shape):
  """Greedy: the same drafts, counts and history."""
  tree = Planned((Arm("tree", Speculative(TREE), (9,), TREE),), max_rounds=2)
  fixed = ModelTree(SMALL, shape)
  settings = dict(max_tokens=LIMITS, history=True)
  one = generate(
    TARGET, PARAMS, PROMPTS, method=Speculative(fixed), method_params=SMALL_PARAMS, **settings
  )
  script = NextRounds(1, shape, 5)  # more than there may be
  two, chooser = planned(lambda _: script, tree, sampling=None, **settings)
  assert one.tokens == two.tokens
  assert drafted(one.history) == drafted(two.history)
  for name in ("drafted_at_depth", "accepted_at_depth", "accepted_at_place"):
    assert np.trim_zeros(one.counters[name], "b") == np.trim_zeros(two.counters[name], "b")
  for name in ("target_forwards", "draft_forwards", "entries"):
    assert one.counters[name] == two.counters[name]
  # What the chooser is told is what the history says; of the last rounds it is not asked.
  heard = sum((report.counts for _, report, _ in chooser.reports), AcceptanceCounts.none(1, 1))
  asked = sum(report.rounds for _, report, _ in chooser.reports)
  assert {report.rounds for _, report, _ in chooser.reports} == {2}
  counted = count_history(one.history[1 : 1 + asked], shape=shape)
  height, breadth = counted.tried.shape
  np.testing.assert_array_equal(heard.accepted[:height, :breadth], counted.accepted)
  assert heard.rounds == counted.rounds
  # Behind the end of a text nothing counts, and the history that is cut here does not know it.
  ends = heard.tried[:height, :breadth] - counted.tried
  assert np.all(ends >= 0) and heard.accepted.sum() == counted.accepted.sum()
