"""The rounds of a store in known texts: those that decoding with its trees has."""

import itertools

import numpy as np
import pytest

from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import SuffixStore, Trie
from mtjax.planning.text_rounds import store_rounds
from tests.draft.drafters import LETTERS, PARAMS, TARGET

DRAFTER, TOKENS = Trie(size=6), 24
SIZE, HEIGHT = DRAFTER.size, DRAFTER.height
IDS = [LETTERS.encode(text) for text in ("abcab", "hijhijh")]


def store() -> SuffixStore:
  return SuffixStore(TARGET.config.vocab_size)


@pytest.fixture(scope="module")
def decoded():
  """Returns the texts of both rows, and the drafts accepted in each round, as it was decoded."""
  own, method = store(), Speculative(DRAFTER)
  run = generate(
    TARGET, PARAMS, IDS, method=method, method_params=own.handle, max_tokens=TOKENS, history=True
  )
  rows = zip(*(record.rows for record in run.history[1:]), strict=True)
  return run.tokens, [[tree for tree in row if tree is not None] for row in rows]


def test_they_are_those_of_decoding(decoded):
  tokens, trees = decoded
  each = store_rounds(store(), SIZE, HEIGHT, IDS, tokens)
  counts = sum(each[1:], each[0])
  assert [one.rounds for one in each] == [len(row) for row in trees]
  every = list(itertools.chain.from_iterable(trees))
  accepted = np.array([len(tree.path) - 1 for tree in every])
  cut = np.array([tree.bonus is None for tree in every])  # the text ended behind its last draft
  depth = np.arange(HEIGHT)[:, None]
  assert counts.rounds == len(every)
  np.testing.assert_array_equal(counts.accepted[:, 0], np.sum(accepted > depth, axis=1))
  tried = np.sum((accepted > depth) | (accepted == depth) & ~cut, axis=1)
  np.testing.assert_array_equal(counts.tried[:, 0], tried)
  assert counts.accepted[1, 0] > 0 and counts.accepted[0, 0] < counts.tried[0, 0]


def test_a_row_learns_what_the_rows_beside_it_wrote_before():
  text = list(range(1, 12))
  prompts, outputs = [[0], [0]], [text, [text[-1], 0, *text[:9]]]
  (alone,) = store_rounds(store(), SIZE, HEIGHT, prompts[1:], outputs[1:])
  first, second = store_rounds(store(), SIZE, HEIGHT, prompts, outputs)
  assert first.rounds == alone.rounds == 10, "no token stands there twice"
  assert second.rounds < 9


def test_no_text_is_refused():
  with pytest.raises(ValueError, match="there is no text to count rounds in"):
    store_rounds(store(), SIZE, HEIGHT, [], [])
