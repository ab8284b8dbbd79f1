"""Capacities of the counts: what is squeezed, what is evicted, and when; by hand."""

from tests.draft.test_trie_store import counts, drafts, store


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
