"""The trie's store: counts and choices as their definition has them, files, sharing."""

import collections
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtjax.draft import TrieSettings, TrieStore
from mtjax.trees import encodings


def store(vocab_size=16, **fields):
  return TrieStore(vocab_size, settings=TrieSettings(**fields))


def drafts(branches):
  """Every path of a draft tree, in node order."""
  paths = [()]
  for parent, token in zip(branches.parent[1:], branches.token[1:], strict=True):
    paths.append((*paths[parent], token))
  return paths[1:]


def counts(found):
  """n-gram -> count of a `Counts`."""
  path, out = [], {}
  for depth, token, count in found.nodes_in_order():
    path[depth - 1 :] = [token]
    out[tuple(path)] = count
  return out


def test_two_branches_merge_as_in_alipays_own_test():
  # lookahead/tests/test_lookahead_cache.py: [1, 2, 3] and [1, 2, 4] come back as one tree.
  trie = store()
  trie.warm([[1, 2, 3], [1, 2, 4]])
  (request,) = trie.begin([[1]])
  found = trie.draft(request, 8, 8)
  assert [1, *found.token[1:]] == [1, 2, 3, 4]
  mask = encodings.to_ancestors(encodings.from_parents(found.parent)).astype(int)
  np.testing.assert_array_equal(mask, [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]])
  assert found.depth == [0, 1, 2, 2] and found.order == [0, 0, 0, 1]


def test_a_prompt_that_begins_late_is_read_when_its_request_is_first_asked_or_told():
  read = []

  class Recorded(TrieStore):
    def _learn(self, request, tokens):
      super()._learn(request, tokens)
      read.append(request.last)

  trie, prompt = Recorded(16, settings=TrieSettings(max_query=4)), [1, 2, 1]
  asked, told, never = trie.begin([prompt] * 3, late=True)
  prompt[:] = [7, 7, 7]  # its caller's list: the store has its own
  assert not read
  assert drafts(trie.draft(asked, 1, 1)) == [(2,)]
  trie.extend(told, [2])
  assert drafts(trie.draft(told, 1, 1)) == [(1,)]
  trie.finish(never)
  assert read == [[1, 2, 1], [1, 2, 1, 2]]
  trie.begin([[3]])
  assert read[2:] == [[3]], "others read at once"


def test_token_0_is_a_token_like_others():
  trie = store()
  (request,) = trie.begin([[0, 0, 3, 0]])
  assert drafts(trie.draft(request, 3, 8)) == [(0,), (3,), (0, 3)]


def test_the_own_prompt_comes_before_more_frequent_outputs_of_others():
  for weight, first in ((1e-4, 5), (1.0, 6)):
    trie = store(output_weight=weight, output_share=0)
    trie.warm([[1, 6, 9]] * 3)
    (request,) = trie.begin([[1, 5, 2, 1]])
    found = drafts(trie.draft(request, 9, 1))
    assert found == [(first,), (11 - first,)]


def test_a_share_of_the_drafts_is_chosen_by_output_frequency_alone():
  trie = store(output_share=0.5)
  trie.warm([[1, 6, 7]] * 3)
  (request,) = trie.begin([[1, 5, 4, 3, 1]])
  assert drafts(trie.draft(request, 4, 2)) == [(6,), (6, 7), (5,), (5, 4)]


def test_a_longer_match_comes_first_and_a_shorter_one_fills_up():
  trie = store(output_share=0)
  (request,) = trie.begin([[2, 9, 2, 9, 2, 9, 2, 8, 1, 2, 7, 1, 2]])
  assert drafts(trie.draft(request, 2, 1)) == [(7,), (9,)]


def test_outputs_are_shared_and_prompts_are_not():
  trie = store()
  one, other = trie.begin([[1, 2, 3], [4, 1]])
  assert drafts(trie.draft(other, 4, 4)) == []
  trie.extend(one, [1, 5])
  assert drafts(trie.draft(other, 4, 4)) == [(5,)]
  trie.finish(one)
  trie.extend(one, [1, 6])  # is not followed any more
  assert drafts(trie.draft(other, 4, 4)) == [(5,)] and drafts(trie.draft(one, 4, 4)) == []
  (later,) = trie.begin([[2]])
  assert later not in (one, other) and drafts(trie.draft(later, 4, 4)) == []


def test_requests_of_the_oldest_generation_go():
  trie = store(generations=2)
  ids = [trie.begin([[1, 2, 1]])[0] for _ in range(3)]
  assert [len(drafts(trie.draft(request, 1, 1))) for request in ids] == [0, 1, 1]


def test_a_long_prompt_counts_from_its_end():
  trie = store(branch_length=2, prompt_nodes=9)
  (request,) = trie.begin([[1, 9, 5, 1, 2, 1]])
  assert drafts(trie.draft(request, 9, 1)) == [(2,)]
  assert trie.begin([[1, 2, 5, 6, 1]]) and drafts(trie.draft(request + 1, 9, 1)) == []


class Definition:
  """The store by its definition: counters of n-grams, candidates in the order they are seen."""

  def __init__(self, settings):
    self.settings, self.length = settings, settings.branch_length + 1
    self.shared, self.requests = collections.Counter(), {}
    self.updated, self.recent = set(), []  # first tokens: since the last squeeze, and all

  def count(self, counter, ends, tokens):
    for token in tokens:
      ends = [(*end, token) for end in [*ends, ()] if len(end) < self.length]
      counter.update(ends)
    return ends

  def begin(self, prompt):
    own = collections.Counter()
    ends = self.count(own, [], prompt)
    number = len(self.requests) + 1
    self.requests[number] = dict(own=own, own_ends=ends, ends=[], last=list(prompt))

  def extend(self, number, tokens):
    found = self.requests[number]
    if found is None:
      return
    found["own_ends"] = self.count(found["own"], found["own_ends"], tokens)
    found["ends"] = self.count(self.shared, found["ends"], tokens)
    found["last"] += tokens
    self.updated |= set(tokens)
    for token in dict.fromkeys(tokens):
      self.recent = [first for first in self.recent if first != token] + [token]

  def finish(self, number):
    if self.requests[number] is None:
      return
    self.requests[number] = None
    if len(self.updated) >= self.settings.squeeze_after:
      for first in self.updated:
        grams = [gram for gram in self.shared if gram[0] == first]
        if len(grams) > self.settings.tree_nodes:
          self.squeeze(grams)
      self.updated = set()
    self.recent = [first for first in self.recent if (first,) in self.shared]
    while len(self.shared) > self.settings.max_total:
      grams = [gram for gram in self.shared if gram[0] == self.recent[0]]
      if len(self.recent) == 1:
        self.squeeze(grams)
        continue
      self.recent.pop(0)
      for gram in grams:
        del self.shared[gram]
    for found in filter(None, self.requests.values()):
      found["ends"] = [end for end in found["ends"] if end in self.shared]

  def squeeze(self, grams):
    for gram in grams:
      if self.shared[gram] > 1:
        self.shared[gram] /= 2
      else:
        del self.shared[gram]

  def draft(self, number, size, depth):
    found, out = self.requests[number], []
    if found is None:
      return out
    own, shared, w = found["own"], self.shared, self.settings.output_weight
    last = tuple(found["last"][-self.settings.max_query :])
    suffixes = [last[i:] for i in range(len(last))]
    for suffix in suffixes:
      self.choose(out, suffix, [(shared, 1.0)], int(size * self.settings.output_share), depth)
    for suffix in suffixes:
      self.choose(out, suffix, [(own, 1 - w), (shared, w)], size, depth)
    return out

  def choose(self, out, suffix, sources, max_drafts, depth):
    candidates, path = [], ()
    while len(out) < max_drafts:
      if len(path) < depth:
        gram = suffix + path
        below = [g for c, _ in sources[:-1] for g in c if g[:-1] == gram]
        last = sources[-1][0]
        rest = [g for g in last if g[:-1] == gram and g not in below]
        for g in below + sorted(rest, key=last.get, reverse=True):
          score = sum(weight * counter.get(g, 0) for counter, weight in sources)
          candidates.append((score, path + g[-1:]))
      if not candidates:
        break
      best = max(candidates, key=lambda c: c[0])  # the first of equals
      candidates.remove(best)
      path = best[1]
      if path not in out:
        out.append(path)


TOKENS = st.lists(st.integers(0, 3), max_size=7)
STEPS = st.one_of(
  st.tuples(st.just("begin"), st.just(0), TOKENS.filter(bool)),
  st.tuples(st.sampled_from(["extend", "extend", "finish"]), st.integers(0, 9), TOKENS),
)
SETTINGS = st.builds(
  TrieSettings,
  branch_length=st.integers(2, 4),
  max_query=st.integers(1, 2),
  output_weight=st.sampled_from([1e-4, 0.5, 1.0]),
  output_share=st.sampled_from([0.0, 0.5]),
  tree_nodes=st.sampled_from([5, 12, 512]),
  squeeze_after=st.sampled_from([1, 2, 4]),
  max_total=st.sampled_from([17, 30, 65536]),
  prompt_nodes=st.sampled_from([17, 30, 65536]),
  generations=st.just(100),
)


@settings(max_examples=300, deadline=None)
@given(SETTINGS, st.lists(STEPS, min_size=2, max_size=25), st.integers(1, 9), st.integers(1, 4))
def test_counts_capacities_and_choices_are_those_of_the_definition(fields, steps, size, depth):
  trie, plain = TrieStore(4, settings=fields), Definition(fields)
  begun = 0
  for what, which, tokens in steps:
    number = which % begun + 1 if begun else None
    if what == "begin":
      max_drafts = max(fields.prompt_nodes // (fields.branch_length + 1), fields.branch_length + 1)
      assert trie.begin([tokens]) == [begun + 1]
      plain.begin(tokens[-max_drafts:])
      begun += 1
    elif number and what == "extend":
      trie.extend(number, tokens)
      plain.extend(number, tokens)
    elif number:
      ended = plain.requests[number] is not None
      trie.finish(number)
      plain.finish(number)
      assert not ended or trie.counts.size <= fields.max_total
    found = counts(trie.counts)
    assert found == dict(plain.shared)
    assert trie.counts.size == len(found)
    assert trie.counts.sizes == collections.Counter(gram[0] for gram in found)
    assert all(count <= found[g[:-1]] for g, count in found.items() if len(g) > 1)
    for number in range(1, begun + 1):
      branches = trie.draft(number, size, depth)
      assert drafts(branches) == plain.draft(number, size, depth)
      siblings = collections.Counter(branches.parent)
      orders = set(zip(branches.parent, branches.order, strict=True))
      assert orders == {(p, order) for p, count in siblings.items() for order in range(count)}
      assert len(set(drafts(branches))) == branches.drafts <= size


def test_what_is_read_is_not_learned_by_others():
  trie = store()
  one, other = trie.begin([[1], [1]])
  trie.read(one, [2, 1])
  assert drafts(trie.draft(one, 1, 1)) == [(2,)] and drafts(trie.draft(other, 1, 1)) == []


def test_par_counts_a_prefix_once_a_branch_and_one_takes_a_single_branch():
  texts = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 5, 6], [1, 2, 5, 6], [1, 7]]
  found = {}
  for retrieval in ("hier", "par", "one"):
    trie = store(retrieval=retrieval)
    trie.warm(texts)
    (request,) = trie.begin([[1]])
    found[retrieval] = drafts(trie.draft(request, 5, 4))
  assert found["hier"] == [(2,), (2, 3), (2, 3, 4), (2, 5), (2, 5, 6)]
  # Five entries: 2, 3, 4 and then 2, 5 of a second branch.
  assert found["par"] == [(2,), (2, 3), (2, 3, 4), (2, 5)]
  assert found["one"] == [(2,), (2, 3), (2, 3, 4)]


def test_one_takes_a_shorter_match_where_the_longer_one_ends_soon():
  trie = store(retrieval="one", max_query=2)
  trie.warm([[2, 7, 8, 9, 6]])
  (request,) = trie.begin([[1, 2, 3, 1, 2]])
  assert drafts(trie.draft(request, 4, 4)) == [(3,), (3, 1), (3, 1, 2)]
  (request,) = trie.begin([[1, 2, 3, 5, 4, 1, 7, 1, 2, 7]])
  assert drafts(trie.draft(request, 4, 4)) == [(8,), (8, 9), (8, 9, 6)]


def test_threads_lose_nothing():
  trie = store()
  ids = trie.begin([[1]] * 4)

  def work(request):
    for _ in range(200):
      trie.extend(request, [request, 7, 8])
      trie.draft(request, 8, 4)

  threads = [threading.Thread(target=work, args=(request,)) for request in ids]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  found = counts(trie.counts)
  assert found[(7, 8)] == 800 and all(found[(request, 7, 8)] == 200 for request in ids)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: TrieSettings(branch_length=0), "branch_length must be at least 1, got 0"),
    (lambda: TrieSettings(max_total=0), "max_total must be at least 1, got 0"),
    (lambda: TrieSettings(squeeze_after=0), "squeeze_after must be at least 1, got 0"),
    (lambda: TrieSettings(retrieval="tree"), "retrieval must be one of hier, par, one, got 'tree'"),
    (lambda: TrieSettings(output_weight=1.5), "output_weight must be between 0 and 1, got 1.5"),
    (lambda: TrieSettings(output_share=-1), "output_share must be between 0 and 1, got -1"),
    (lambda: TrieSettings(max_query=13), r"max_query \(13\) must be at most branch_length \(12\)"),
    (lambda: TrieStore(0), "vocab_size must be at least 1, got 0"),
    (lambda: TrieStore(4).warm([[1], [4]]), "text 1 has token ids outside 0..3"),
  ],
)
def test_settings_out_of_range(make, message):
  with pytest.raises(ValueError, match=message):
    make()
