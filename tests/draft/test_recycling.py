"""The recycled matrix is what a dictionary kept in Python would be; its trees are what it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import Recycling
from mtjax.draft.model_free import recycling
from mtjax.draft.model_free.recycling import of_bigrams, replace_rows, template
from mtjax.trees import encodings, k_ary
from tests.draft.drafters import PARAMS, PROMPTS, TARGET, VOCAB
from tests.draft.recorder import rounds

V, K = 6, 3
EMPTY = np.full((V, K), -1, np.int32)
replace_rows, of_bigrams = jax.jit(replace_rows), jax.jit(of_bigrams)
tokens = st.integers(0, V - 1)


def rows_in_python(matrix, token, rows, real):
  out = np.array(matrix)
  for t, row, is_real in zip(token, rows, real, strict=True):
    if is_real:
      out[t] = row
  return out


def bigrams_in_python(first, second, real):
  found = {t: [] for t in range(V)}
  for a, b, is_real in zip(first, second, real, strict=True):
    if is_real:
      found[a] = [b, *(x for x in found[a] if x != b)]
  return np.array([(found[t] + [-1] * K)[:K] for t in range(V)])


@given(
  st.lists(
    st.tuples(tokens, st.lists(tokens, min_size=K, max_size=K), st.booleans()),
    min_size=9,
    max_size=9,
  )
)
def test_of_nodes_with_the_same_token_the_last_counts(nodes):
  token, rows, real = (np.array(x) for x in zip(*nodes, strict=True))
  before = np.arange(V * K, dtype=np.int32).reshape(V, K)
  expected = rows_in_python(before, token, rows, real)
  np.testing.assert_array_equal(replace_rows(before, token, rows, real), expected)


@given(st.lists(st.tuples(tokens, tokens, st.booleans()), min_size=14, max_size=14))
def test_the_prompts_bigrams_are_there_the_latest_first(pairs):
  first, second, real = (np.array(x) for x in zip(*pairs, strict=True))
  expected = bigrams_in_python(first, second, real)
  np.testing.assert_array_equal(of_bigrams(EMPTY, first, second, real), expected)


def test_padding_of_prompts_is_in_no_bigram():
  drafter = Recycling(V, tree=3, candidates=K)
  prompt = jnp.array([[1, 2, 3, 5, 5], [4, 2, 0, 0, 0]])
  matrix = drafter.start(None, prompt, jnp.array([3, 2]), max_new=4)
  expected = EMPTY.copy()
  expected[1, 0], expected[2, 0], expected[4, 0] = 2, 3, 2
  np.testing.assert_array_equal(matrix, expected)


SHAPE = encodings.from_paths([[0], [1], [0, 0], [0, 2], [1, 0], [0, 0, 1]])


def check(drafter):
  """Every tree is read off the matrix, every node that was computed replaces its token's row."""
  seen, _ = rounds(drafter)
  assert len(seen) > 15
  for matrix, draft, round, after in seen:
    token, valid, expected = draft.tree.token, draft.tree.valid, matrix.copy()
    computed = round.tree.valid & (round.num_emitted > 0)[:, None]
    for b, node in np.ndindex(token.shape):
      if node > 0:
        above = SHAPE.parent[node]
        entry = matrix[token[b, above], SHAPE.rank[node]]
        assert valid[b, node] == (valid[b, above] and entry >= 0)
        assert not valid[b, node] or token[b, node] == entry
      if computed[b, node]:
        expected[token[b, node]] = np.argsort(-round.logits[b, node], kind="stable")[:K]
    np.testing.assert_array_equal(after, expected)


def test_every_round_the_tree_and_the_matrix_are_those_of_plain_python():
  check(Recycling(VOCAB, SHAPE, candidates=K))


@dataclasses.dataclass(frozen=True)
class OnlyAccepted(Recycling):
  def update(self, state, round):
    on_path = jnp.arange(round.verdict.path.shape[1]) < round.verdict.count[:, None]
    path = jnp.where(on_path, round.verdict.path, 0)
    accepted = jnp.zeros_like(round.tree.valid).at[jnp.arange(len(path))[:, None], path].set(True)
    return super().update(state, round.replace(tree=round.tree.replace(valid=accepted)))


@dataclasses.dataclass(frozen=True)
class FirstCounts(Recycling):
  def update(self, state, round):
    flipped = jax.tree.map(lambda x: x[:, ::-1], (round.tree, round.logits))
    return super().update(state, round.replace(tree=flipped[0], logits=flipped[1]))


@pytest.mark.parametrize("mistake", [OnlyAccepted, FirstCounts])
def test_mistakes_in_the_update_are_seen(mistake):
  with pytest.raises(AssertionError):
    check(mistake(VOCAB, SHAPE, candidates=K))


def test_rows_of_a_batch_learn_from_each_other():
  method = Speculative(Recycling(VOCAB, tree=6))
  alone = generate(TARGET, PARAMS, PROMPTS[:1], max_tokens=20, method=method)
  together = generate(TARGET, PARAMS, PROMPTS[:1] * 2, max_tokens=20, method=method)
  assert together.tokens == alone.tokens * 2
  assert together.counters["target_forwards"] <= 2 * alone.counters["target_forwards"]


def test_templates_are_the_best_trees_for_their_rates():
  rates = recycling._RATES
  for drafts in (1, 8, 80):
    paths = encodings.to_paths(template(drafts))
    assert len(paths) == drafts
    chosen = {tuple(p): np.prod([rates[r] for r in p]) for p in paths}
    others = [
      np.prod([rates[r] for r in (*path, rank)])
      for path in [(), *chosen]
      for rank in range(len(rates))
      if (*path, rank) not in chosen
    ]
    assert min(chosen.values()) >= max(others) - 1e-15


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(tree=0), "a tree needs at least 1 draft, got 0"),
    (dict(candidates=0), "candidates must be between 1 and the vocabulary's 6 tokens, got 0"),
    (dict(candidates=7), "candidates must be between 1 and the vocabulary's 6 tokens, got 7"),
    (
      dict(tree=k_ary((4,)), candidates=3),
      "the tree needs 4 successors per token, but candidates is 3",
    ),
  ],
)
def test_settings_out_of_range(settings, message):
  with pytest.raises(ValueError, match=message):
    Recycling(**{"vocab_size": V, "candidates": 3, **settings})
