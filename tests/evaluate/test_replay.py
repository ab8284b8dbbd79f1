"""Replay, with a fixed text as the target: figures that can be counted by hand."""

import numpy as np
import pytest

from mtjax.bench.replay import compare, replay, split
from mtjax.draft import PromptLookup, Trie, TrieStore

PERIODIC = ([1, 2, 3, 1, 2, 3], [1, 2, 3] * 4)


def test_a_period_is_drafted_whole():
  # 1 token of the prefill, then 4 + 4 + 3: 12 tokens in 4 forwards.
  assert replay([PERIODIC], PromptLookup(length=3), None, vocab_size=5) == 3.0


def test_a_text_that_never_repeats_is_decoded_token_by_token():
  text = list(range(24))
  assert replay([(text[:12], text[12:])], PromptLookup(length=3), None, vocab_size=24) == 1.0


def test_a_store_is_shared_by_the_texts_or_made_anew():
  text = list(range(24))
  pairs = [(text[:12], text[12:])] * 2
  store = TrieStore(24)
  # The second time all 11 that follow the prefill's token are drafts: 4 + 4 + 3.
  shared = replay(pairs, Trie(size=4), store.handle, vocab_size=24)
  assert shared == 24 / (12 + 1 + 3)
  kept = []

  def fresh():
    kept[:] = [TrieStore(24)]
    return kept[0].handle

  assert replay(pairs, Trie(size=4), fresh, vocab_size=24) == 1.0


def test_warming_on_the_text_itself_helps_every_store():
  rng = np.random.default_rng(0)
  texts = rng.integers(0, 30, (3, 16)).tolist()
  pairs, others = [(text[:8], text[8:]) for text in texts], [text[8:] for text in texts]
  rates = dict(compare(pairs, others, size=4, vocab_size=30))
  assert list(rates) == ["lookup"] + [
    f"{name}, {how}" for name in ("trie", "suffix") for how in ("alone", "cold", "warmed")
  ]
  for name in ("trie", "suffix"):
    assert rates[f"{name}, warmed"] > rates[f"{name}, alone"] + 0.5


def test_documents_are_split_in_halves_and_spread():
  documents = [np.arange(length) + length for length in (20, 8, 16, 40, 30)]
  pairs, others = split(documents, 2, prompt=9, tokens=12)
  assert pairs == [
    (list(range(21, 30)), list(range(30, 40))),
    (list(range(51, 60)), list(range(60, 72))),
  ]
  assert others == [list(range(24, 32)), list(range(45, 57))]


def test_too_few_documents_are_said():
  with pytest.raises(ValueError, match="2 documents of at least 16 tokens are needed, got 1"):
    split([np.arange(16), np.arange(16), np.arange(3)], 2, prompt=8, tokens=8)
  with pytest.raises(ValueError, match="there is no text to replay"):
    replay([], PromptLookup(), None, vocab_size=5)
