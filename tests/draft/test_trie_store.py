"""The trie's store: counts and choices as their definition has them, files, sharing."""

import collections
import io
import threading
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtjax.draft import TrieSettings, TrieStore
from mtjax.trees import Topology


def store(vocab_size=16, **fields):
  return TrieStore(vocab_size, settings=TrieSettings(**fields))


def read(path):
  found = store()
  found.load(path)
  return found.counts


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
  mask = Topology.from_parents(found.parent).ancestors().astype(int)
  np.testing.assert_array_equal(mask, [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]])
  assert found.depth == [0, 1, 2, 2] and found.order == [0, 0, 0, 1]


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

  def choose(self, out, suffix, sources, most, depth):
    candidates, path = [], ()
    while len(out) < most:
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
      most = max(fields.prompt_nodes // (fields.branch_length + 1), fields.branch_length + 1)
      assert trie.begin([tokens]) == [begun + 1]
      plain.begin(tokens[-most:])
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


def test_squeezing_halves_what_is_frequent_and_drops_the_rest_when_a_request_ends():
  trie = store(tree_nodes=4, branch_length=2, squeeze_after=1)
  running, request = trie.begin([[5], [1]])
  trie.warm([[1, 2]] * 3 + [[1, 3]])
  assert counts(trie.counts) == {(1,): 4, (1, 2): 3, (2,): 3, (1, 3): 1, (3,): 1}
  assert drafts(trie.draft(request, 9, 9)) == [(2,), (3,)]
  trie.extend(running, [1, 2, 5, 6])  # 1, 12, 13, 125: four are kept; 5 and 6 are other trees
  trie.extend(running, [2, 1, 2, 7])  # 127 is the fifth of its tree, and stays while this runs
  assert counts(trie.counts)[(1, 2, 7)] == 1 and counts(trie.counts)[(1, 2)] == 5
  trie.finish(running)
  found = counts(trie.counts)
  assert {gram: n for gram, n in found.items() if gram[0] == 1} == {(1,): 3, (1, 2): 2.5}
  assert found[(5,)] == found[(5, 6)] == 1  # another tree
  assert drafts(trie.draft(request, 9, 9)) == [(2,)]


def test_squeezing_waits_for_updated_trees_and_happens_once():
  trie = store(tree_nodes=1, branch_length=1, max_query=1, squeeze_after=3)
  trie.warm([[1, 2]] * 8)
  assert counts(trie.counts) == {(1,): 8, (1, 2): 8, (2,): 8}
  trie.warm([[3]])  # the third tree; the first is as large as before, only its counts are not
  assert counts(trie.counts) == {(1,): 4, (1, 2): 4, (2,): 8, (3,): 1}
  trie.warm([[1, 2]])
  assert counts(trie.counts)[(1, 2)] == 5


def test_above_the_total_the_least_recently_updated_tree_goes_when_a_request_ends():
  trie = store(branch_length=1, max_query=1, max_total=4)
  (running,) = trie.begin([[9]])
  trie.warm([[1], [2], [3], [4], [1]])
  trie.extend(running, [5, 6])  # 5, 56, 6 beside the four
  assert len(counts(trie.counts)) == 7
  trie.finish(running)
  assert counts(trie.counts) == {(1,): 2, (5,): 1, (5, 6): 1, (6,): 1}
  (request,) = trie.begin([[5]])
  assert drafts(trie.draft(request, 4, 4)) == [(6,)]


def test_a_tree_that_is_too_large_by_itself_is_squeezed_until_it_fits():
  trie = store(branch_length=3, max_total=2)
  trie.warm([[1, 1, 1, 1]])  # 1 four times, 11 three, 111 two, 1111 once
  assert counts(trie.counts) == {(1,): 1, (1, 1): 0.75}


def test_a_running_text_does_not_add_to_what_was_evicted():
  trie = store(branch_length=2, max_total=1)
  running, other = trie.begin([[9], [9]])
  trie.extend(running, [1, 2])
  trie.extend(other, [3])
  trie.finish(other)  # all but the tree of 3 go
  trie.extend(running, [4, 5])
  assert counts(trie.counts) == {(3,): 1, (4,): 1, (4, 5): 1, (5,): 1}


def test_nodes_that_were_squeezed_out_are_forgotten_where_they_hung():
  trie = store(tree_nodes=4, branch_length=2, squeeze_after=1)
  (request,) = trie.begin([[1, 2]])
  trie.warm([[1, 2, 6], [1, 2, 6], [1, 2, 3]])
  assert drafts(trie.draft(request, 9, 1)) == [(6,), (3,)]
  trie.warm([[1, 4], [9, 8]])  # 1, 12, 126, 123, 14: 123 and 14 go, and 9 and 98 get their numbers
  assert (1, 2, 3) not in counts(trie.counts) and (9, 8) in counts(trie.counts)
  assert drafts(trie.draft(request, 9, 1)) == [(6,), (3,)]  # 3 after 2 alone


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


def test_a_file_gives_back_the_counts(tmp_path):
  path = tmp_path / "trie.npz"
  trie = TrieStore(16, "words")
  rng = np.random.default_rng(0)
  trie.warm(rng.integers(0, 16, (20, 30)).tolist())
  trie.save(path)
  again = TrieStore(16, "words")
  again.load(path)
  assert counts(again.counts) == counts(trie.counts) and again.counts.size == trie.counts.size
  for prompt in rng.integers(0, 16, (20, 3)).tolist():
    one, other = (t.draft(t.begin([prompt])[0], 12, 6) for t in (trie, again))
    assert drafts(one) == drafts(other)
  shallow = TrieStore(16, "words", TrieSettings(branch_length=2, max_total=40))
  shallow.load(path)
  found = counts(shallow.counts)
  assert len(found) <= 40 and max(map(len, found)) <= 3
  assert [file.name for file in tmp_path.iterdir()] == ["trie.npz"]


def test_a_save_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
  path = tmp_path / "trie.npz"
  trie = store()
  trie.warm([[1, 2, 3]])
  trie.save(path)
  before = path.read_bytes()

  def fail(*_, **__):
    raise OSError("no space left")

  monkeypatch.setattr(np, "savez_compressed", fail)
  with pytest.raises(OSError, match="no space"):
    trie.save(path)
  assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_damaged_bytes_never_raise_anything_else_than_a_valueerror_with_the_name(tmp_path):
  path, rng = tmp_path / "trie.npz", np.random.default_rng(0)
  trie = store()
  trie.warm(rng.integers(0, 16, (2, 12)).tolist())
  trie.save(path)
  whole = path.read_bytes()
  for _ in range(500):
    broken = bytearray(whole)
    for place in rng.integers(0, len(whole), rng.integers(1, 4)):
      broken[place] = rng.integers(0, 256)
    path.write_bytes(broken)
    try:
      store().load(path)
    except ValueError as error:
      assert str(path) in str(error)


@pytest.mark.parametrize(
  "changed",
  [
    dict(count=np.array([np.inf, np.inf, 1.0])),
    dict(count=np.array([np.nan, 1.0, 1.0])),
    dict(count=np.array([1e300, 1.0, 1.0])),
    dict(token=np.array([1.5, 2.0, 3.0])),
    dict(depth=np.array([[1, 2, 3]])),
    dict(depth=np.array([1, 2])),
    dict(version=np.inf),
    dict(vocab_size="many"),
  ],
)
def test_impossible_contents_are_refused_with_the_files_name(tmp_path, changed):
  path = tmp_path / "trie.npz"
  trie = store()
  trie.warm([[1, 2, 3]])
  trie.save(path)
  with np.load(path) as file:
    arrays = {name: array[:3] if array.ndim else array for name, array in file.items()}
  np.savez(path, **arrays)
  store().load(path)
  np.savez(path, **{**arrays, **changed})
  with pytest.raises(ValueError, match="trie.npz' is"):
    store().load(path)


def test_a_header_that_claims_more_than_memory_holds_is_refused(tmp_path):
  path = tmp_path / "trie.npz"
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header, dict(descr="<i4", fortran_order=False, shape=(2**58,))
  )
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("depth.npy", header.getvalue())
  with pytest.raises(ValueError, match="trie.npz' is no file of a trie store"):
    store().load(path)


def test_two_stores_of_one_file_lose_nothing(tmp_path):
  path = tmp_path / "trie.npz"
  one, other = store(), store()
  for each in (one, other):
    each.share(path)  # there is no file yet
  (request,) = one.begin([[9]])
  one.extend(request, [1, 2])  # goes on after both have saved
  other.warm([[1, 3], [1, 3]])
  other.save(path)
  one.save(path)
  both = {(1,): 3, (1, 2): 1, (2,): 1, (1, 3): 2, (3,): 2}
  assert counts(one.counts) == both and counts(read(path)) == both
  one.extend(request, [5])
  other.warm([[6]])
  other.save(path)
  one.save(path)
  one.save(path)  # nothing is counted twice
  assert counts(read(path)) == {**both, (1, 2, 5): 1, (2, 5): 1, (5,): 1, (6,): 1}
  assert [file.name for file in tmp_path.iterdir()] == ["trie.npz"]


def test_a_store_of_two_files_keeps_what_others_wrote_in_either(tmp_path):
  paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
  one = store()
  for path in paths:
    one.save(path)
  for token, path in enumerate(paths, 1):
    other = store()
    other.load(path)
    other.warm([[token]])
    other.save(path)
  one.warm([[3]])
  for path in [*paths, *paths]:
    one.save(path)
  assert [counts(read(path)) for path in paths] == [{(1,): 1, (3,): 1}, {(2,): 1, (3,): 1}]


def test_a_file_that_cannot_be_added_to_is_left_and_the_counts_are_beside_it(tmp_path):
  path = tmp_path / "trie.npz"
  trie, foreign = store(), TrieStore(16, "letters")
  trie.share(path)
  trie.warm([[1, 2]])
  foreign.save(path)
  with pytest.raises(ValueError, match="of another vocabulary.*the store was written to") as error:
    trie.save(path)
  (beside,) = set(tmp_path.iterdir()) - {path}
  assert str(beside) in str(error.value) and counts(read(beside)) == counts(trie.counts)
  TrieStore(16, "letters").load(path)


def test_processes_that_save_at_once_lose_nothing(tmp_path):
  path = tmp_path / "trie.npz"
  stores = [store() for _ in range(8)]
  for number, each in enumerate(stores):
    each.share(path)
    each.warm([[number], [15]])
  threads = [threading.Thread(target=each.save, args=(path,)) for each in stores]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert counts(read(path)) == {**{(number,): 1 for number in range(8)}, (15,): 8}


def test_wrong_files_are_refused(tmp_path):
  path = tmp_path / "trie.npz"
  trie = TrieStore(16, "words")
  trie.warm([[1, 2, 3]] * 50)

  def saved(**changed):
    path.unlink(missing_ok=True)  # what is damaged is not to be added to
    trie.save(path)
    with np.load(path) as file:
      np.savez_compressed(path, **{**dict(file), **changed})

  def refused(message, other=trie):
    with pytest.raises(ValueError, match=message):
      other.load(path)
    assert counts(trie.counts)[(1, 2, 3)] == 50  # what it had is still there

  saved()
  refused(r"of another vocabulary \(16 tokens, words; here 16, letters", TrieStore(16, "letters"))
  refused("another vocabulary", TrieStore(17, "words"))
  whole = path.read_bytes()
  for broken in (b"", b"text", whole[:-40], whole[:60] + b"????????" + whole[68:]):
    path.write_bytes(broken)
    refused("is no file of a trie store")
  np.savez(path, a=1)
  refused("is no file of a trie store")
  saved(version=2)
  refused("has version 2; this program reads 1")
  saved(depth=np.array([1, 3, 2, 1, 2, 1]))
  refused("is damaged: a node of depth 3 follows one of depth 1")
  saved(token=np.array([1, 2, 3, 2, 16, 3]))
  refused("is damaged: token ids outside the vocabulary")
  saved(count=np.array([50, 50, 51, 50, 50, 50.0]))
  refused("is damaged: token 3 at depth 3")
  with pytest.raises(FileNotFoundError):
    trie.load(tmp_path / "none.npz")


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
