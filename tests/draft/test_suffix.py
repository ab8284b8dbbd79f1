"""Suffix counts: the most probable paths, by hand and by definition; when they are kept."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtjax.draft import SuffixSettings, SuffixStore
from tests.draft.test_trie_store import counts, drafts


def store(**fields):
  return SuffixStore(16, settings=SuffixSettings(**fields))


def test_a_longer_context_comes_first_and_leaves_a_share_to_the_shorter():
  # After (8, 1): 2 twice of 3 occurrences (the last is the end). After (1): 2 twice, 3 five times.
  # P(2) = 2/4 + 1/4 2/9 = 0.556, P(3) = 1/4 5/9 = 0.139.
  text = [8, 1, 2, 8, 1, 2] + [9, 1, 3] * 5 + [8, 1]
  trie = store(max_query=2)
  (request,) = trie.begin([text])
  found = trie.draft(request, 2, 1)
  assert drafts(found) == [(2,), (3,)]
  only_one = store(max_query=1)
  (request,) = only_one.begin([text])
  assert drafts(only_one.draft(request, 2, 1)) == [(3,), (2,)]


def test_what_came_once_is_not_trusted_far():
  # (4, 5, 6) followed 1 once; 2 followed it three times. By probability 2 comes before the path's
  # second token: 3/5 and 1/5, then 1/5 (1/2 + ...) for (4, 5).
  trie = store(max_query=1)
  (request,) = trie.begin([[1, 4, 5, 6] + [1, 2] * 3 + [1]])
  assert drafts(trie.draft(request, 3, 3))[:2] == [(2,), (2, 1)]
  assert (4, 5) not in drafts(trie.draft(request, 4, 3))


def test_outputs_of_others_weigh_less_than_the_own_text():
  for weight, first in ((0.1, 5), (1.0, 6)):
    trie = store(output_weight=weight)
    trie.warm([[1, 6]] * 4)
    (request,) = trie.begin([[1, 5, 2, 1]])
    assert drafts(trie.draft(request, 1, 1)) == [(first,)]


class Definition:
  """Probabilities by their definition, over all paths."""

  def __init__(self, fields, own, shared, last):
    self.fields, self.own, self.shared, self.last = fields, own, shared, last

  def token(self, path, token):
    """P(token | path): the product's last factor."""
    w, mass, out = self.fields.output_weight, 1.0, 0.0
    for start in range(len(self.last)):
      context = self.last[start:]
      if not any(len(g) > len(context) and g[: len(context)] == context for g in self.known()):
        continue  # never followed by anything: no match
      gram = context + path
      total = self.fields.escape + self.own.get(gram, 0) + w * self.shared.get(gram, 0)
      count = self.own.get(gram + (token,), 0) + w * self.shared.get(gram + (token,), 0)
      if gram in self.own or gram in self.shared:
        out += mass * count / total
        mass *= self.fields.escape / total
    return out

  def known(self):
    return {*self.own, *self.shared}

  def path(self, path):
    out = 1.0
    for place, token in enumerate(path):
      out *= self.token(path[:place], token)
    return out


TEXT = st.lists(st.integers(0, 2), min_size=1, max_size=9)


@settings(max_examples=100, deadline=None)
@given(
  st.lists(TEXT, max_size=3),
  TEXT,
  st.sampled_from([0.1, 0.5, 1.0]),
  st.sampled_from([0.3, 1.0]),
  st.integers(3, 9),
)
# The prompt's only (0, 1) is its end: nothing follows it there, and it counts for the context.
@example([[0, 1, 1, 1, 0]], [0, 1], 0.1, 0.3, 3)
def test_the_most_probable_paths_of_the_definition_are_drafted(texts, prompt, weight, escape, size):
  depth = 2
  fields = SuffixSettings(branch_length=4, max_query=2, output_weight=weight, escape=escape)
  trie = SuffixStore(3, settings=fields)
  trie.warm(texts)
  (request,) = trie.begin([prompt])
  branches = trie.draft(request, size, depth)
  found = drafts(branches)
  assert len(set(found)) == len(found) <= size and max(branches.depth) <= depth
  own = SuffixStore(3, settings=fields)
  own.warm([prompt])
  plain = Definition(fields, counts(own.counts), counts(trie.counts), tuple(prompt[-2:]))
  every = [p for n in (1, 2) for p in itertools.product(range(3), repeat=n)]
  best = sorted((p for path in every if (p := plain.path(path)) > 0), reverse=True)[:size]
  assert [plain.path(path) for path in found] == pytest.approx(best)
  assert branches.survival == pytest.approx([1.0, *(plain.path(path) for path in found)])


def test_settings_out_of_range():
  with pytest.raises(ValueError, match="escape must be above 0, got 0"):
    SuffixSettings(escape=0)
  with pytest.raises(ValueError, match=r"max_query \(16\) must be at most branch_length \(15\)"):
    SuffixSettings(max_query=16)
