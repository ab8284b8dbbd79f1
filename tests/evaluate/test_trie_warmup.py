"""Warm-up curves: counted as replay counts, and more warm-up never costs under the capacities."""

import json

import numpy as np
import pytest

from mtjax.bench import trie_requests
from mtjax.bench.replay import replay
from mtjax.bench.trie_warmup import CurvePoint, count_forwards, curves, fall
from mtjax.draft import Trie, TrieSettings, TrieStore, host
from mtjax.draft.model_free.trie_counts import Counts

VOCAB = 64
AT = [0, 25, 50, 100, 200, 400, 800, 1600]


class Reader:
  """A store that learns no output."""

  def __init__(self, store):
    self.begin, self.extend = store.begin, store.read
    self.finish, self.draft = store.finish, store.draft
    self.handle = host.register(self)


def requests(count, seed=0):
  """Sentences of 4 phrases out of 48, frequent and rare ones, with a random token after each."""
  rng = np.random.default_rng(seed)
  phrases = np.random.default_rng(99).integers(0, VOCAB - 16, (48, 6))
  weights = 1 / np.arange(1, 49)
  chosen = rng.choice(48, (count, 4), p=weights / weights.sum())
  noise = rng.integers(VOCAB - 16, VOCAB, (count, 4, 1))
  return np.concatenate([phrases[chosen], noise], axis=2).reshape(count, -1).tolist()


class OneCapacity(Counts):
  """One capacity for all trees, kept by squeezing every one of them as texts come."""

  def __init__(self, length, nodes):
    super().__init__(length)
    self._nodes = nodes

  def end(self, text):
    super().end(text)
    while self.size > self._nodes:
      for tree in list(self.sizes):
        self._forget(self._squeeze(tree))


def measured(counts=None):
  """The curve of a store scaled down: 64 nodes a tree, squeezed once 32 of 64 were updated."""
  store = TrieStore(VOCAB, settings=TrieSettings(branch_length=6, tree_nodes=64, squeeze_after=32))
  store.counts = counts or store.counts
  pairs = [(text[:3], text[3:]) for text in requests(40, seed=1)]
  return curves([store], requests(AT[-1]), pairs, AT, size=6)[0]


def test_more_warm_up_never_costs_with_capacities_per_first_token():
  points = measured()
  drop, error = fall(points)
  assert drop < 0.05 and drop < error, [point.rate for point in points]
  assert points[-1].rate > 2 * points[0].rate and max(point.nodes for point in points) < 3000


def test_with_one_capacity_for_all_it_does():
  # Though this store may hold more than the other ever does.
  drop, error = fall(measured(OneCapacity(7, nodes=3000)))
  assert drop > 0.1 and drop > 2 * error


def test_counts_are_those_of_replay():
  store = TrieStore(VOCAB)
  store.warm(requests(20))
  pairs = [(text[:3], text[3:]) for text in requests(2, seed=1)]
  forwards = [count_forwards(store, pair, size=5, depth=3) for pair in pairs]
  reader = Reader(store)
  rate = replay(pairs, Trie(size=5, depth=3), reader.handle, vocab_size=VOCAB)
  assert rate == sum(len(text) for _, text in pairs) / sum(forwards)


def test_measuring_teaches_nothing():
  store = TrieStore(VOCAB)
  one, again = (curves([store], [], [([1, 2], [1, 2] * 8)], [0], size=4) for _ in range(2))
  assert one == again and one[0][0].nodes == 0


def test_stores_that_choose_otherwise_share_what_one_learns():
  stores = [TrieStore(VOCAB, settings=TrieSettings(retrieval=name)) for name in ("hier", "one")]
  pairs = [(text[:3], text[3:]) for text in requests(8, seed=1)]
  merged, single = curves(stores, requests(50), pairs, [0, 50], size=6)
  assert [point.nodes for point in merged] == [point.nodes for point in single]
  assert merged[1].rate > single[1].rate > single[0].rate


def test_rates_errors_and_falls_by_hand():
  high = CurvePoint(0, 0, tokens=(10, 20), forwards=(5, 5))  # 3 tokens a forward
  low = CurvePoint(9, 0, tokens=(10, 20), forwards=(5, 10))  # 2
  assert (high.rate, low.rate) == (3, 2)
  np.testing.assert_allclose(high.influences, [-0.5, 0.5])
  assert high.error == pytest.approx(0.5**0.5) and low.error == 0
  assert fall([high, low]) == pytest.approx((1, 0.5**0.5))
  assert fall([low, high]) == (0, 0)


@pytest.mark.parametrize("at", [[0, 0], [2, 1], [0, 4]])
def test_points_must_rise_within_the_texts(at):
  with pytest.raises(ValueError, match="warm-up points must rise from 0 to 3 at most"):
    curves([TrieStore(4)], [[1], [2], [3]], [], at, size=4)


def test_outputs_are_recorded_once_and_go_on_where_they_ended(tmp_path):
  path, calls = tmp_path / "outputs.jsonl", []

  def write(prompts):
    calls.append(list(prompts))
    return [prompt.upper() for prompt in prompts]

  prompts = ["a", "b", "c", "d\n"]
  whole = [(prompt, prompt.upper()) for prompt in prompts]
  assert list(trie_requests.recorded(path, prompts[:1], 2, write)) == whole[:1]
  assert list(trie_requests.recorded(path, prompts, 2, write)) == whole
  assert list(trie_requests.recorded(path, prompts, 2, write)) == whole
  assert calls == [["a"], ["a", "b"], ["c", "d\n"]]


def test_requests_are_read_from_their_files(tmp_path):
  articles, bench = tmp_path / "articles.jsonl", tmp_path / "bench.jsonl"
  lines = [json.dumps({"text": letter * count}) for letter, count in (("a", 1200), ("b", 900))]
  articles.write_text("\n".join(lines), "utf-8")
  found = trie_requests.passages(articles)
  assert len(found) == 6 and set(map(len, found)) == {600} and len({f[0] for f in found[:2]}) == 2
  bench.write_text(
    '{"category": "qa", "turns": ["no"]}\n{"category": "rag", "turns": ["one", "two"]}\n', "utf-8"
  )
  assert trie_requests.retrieved(bench) == ["one\ntwo"]
  bench.write_text('{"q": "1+1", "a": "2"}\n', "utf-8")
  assert trie_requests.answered(bench, "q", "a") == [("1+1\n", "2")]
