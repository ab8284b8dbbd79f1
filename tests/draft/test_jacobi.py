"""Lookahead decoding against its definition: the pool, the window, what they cost."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtjax import frontier
from mtjax.draft import Context, Jacobi
from mtjax.draft.model_free.jacobi import insert
from mtjax.rounds.state import Request
from mtjax.sampling.logits import Sampling
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, TARGET, VOCAB
from tests.draft.recorder import rounds

insert = jax.jit(insert)


def pool_in_python(ngrams, buckets, guesses):
  """First token modulo buckets -> its n-grams, latest first."""
  pool = [[] for _ in range(buckets)]
  for ngram in map(tuple, ngrams):
    own = pool[ngram[0] % buckets]
    if ngram in own:
      own.remove(ngram)
    own.insert(0, ngram)
    del own[guesses:]
  return pool


def as_lists(pool):
  """The same of a row of the array."""
  return [[tuple(ngram) for ngram in own if ngram[0] >= 0] for own in np.asarray(pool).tolist()]


tokens = st.integers(0, 3)
trigram = st.tuples(st.tuples(tokens, tokens, tokens), st.booleans())
trigrams = st.lists(trigram, min_size=12, max_size=12)


@given(trigrams, trigrams)
def test_a_pool_keeps_the_latest_ngrams_of_every_first_token(one, other):
  empty = np.full((2, 3, 2, 3), -1, np.int32)
  ngram = np.array([[n for n, _ in row] for row in (one, other)])
  real = np.array([[r for _, r in row] for row in (one, other)])
  pool = insert(empty, ngram, real)
  for row, given_ngrams in enumerate((one, other)):
    expected = pool_in_python([n for n, is_real in given_ngrams if is_real], 3, 2)
    assert as_lists(pool[row]) == expected


@functools.cache
def _greedy():
  @jax.jit
  def next_token(row, length):
    return jnp.argmax(TARGET.forward(PARAMS, frontier.causal(row[None])).logits[0, length - 1])

  return next_token


def next_token(text):
  """Returns the tiny target's greedy token after a text; one row of 64 tokens, so one program."""
  row = np.zeros(64, np.int32)
  row[: len(text)] = text
  return int(_greedy()(row, len(text)))


def check(drafter):
  """Every round is what the paper's loop, written out in Python, would have done."""
  seen, texts = rounds(drafter)
  width, levels = drafter.window, drafter.ngram - 1
  known = [[*prompt, text[0]] for prompt, text in zip(PROMPTS, texts, strict=True)]
  pools, hits = [], 0
  for prompt in PROMPTS:
    of_prompt = [prompt[i : i + levels + 1] for i in range(len(prompt) - levels)]
    pools.append(pool_in_python(of_prompt, drafter.buckets, drafter.guesses))
  for before, draft, round, after in seen:
    for b, text in enumerate(known):
      num_emitted = int(round.num_emitted[b])
      if num_emitted == 0:
        continue
      left = LIMITS[b] - (len(text) - len(PROMPTS[b]))
      offered = draft.tree.valid[b] & draft.offered[b]
      assert paths(draft.tree, b, offered) == {
        ngram[1 : i + 1]
        for ngram in pools[b][text[-1] % drafter.buckets]
        if ngram[0] == text[-1]
        for i in range(1, levels + 1)
      }
      window = before.window[b].copy()
      window[0, 0] = text[-1]
      new = np.zeros(width, int)
      found = []
      for column in range(width):
        if column + levels - 1 <= left:
          path = [*window[0, 1 : column + 1], *window[1:, column]]
          new[column] = next_token([*text, *path])
          found.append([*window[:, column], new[column]])
      emitted = round.token[b, :num_emitted].tolist()
      grown = [*text, *emitted]
      ends = range(len(text), len(grown) + 1)
      found += [grown[end - levels - 1 : end] for end in ends if end > levels]
      known[b] = grown
      everything = [n for own in pools[b] for n in own[::-1]] + [tuple(map(int, n)) for n in found]
      pools[b] = pool_in_python(everything, drafter.buckets, drafter.guesses)
      hits += num_emitted - 1
      if width + levels - 1 <= left:  # all columns were computed
        moved = np.roll(np.concatenate([window[1:], new[None]]), 1 - num_emitted, axis=1)
        np.testing.assert_array_equal(after.window[b], moved)
      assert as_lists(after.pool[b]) == pools[b]
  assert hits > 5, "no candidate was ever right: this tests little"
  assert [text[len(p) :] for text, p in zip(known, PROMPTS, strict=True)] == texts


def paths(tree, row, valid):
  """Tokens on the way to every node that counts, but the root."""
  out = set()
  for node in np.flatnonzero(valid)[1:]:
    path, at = [], node
    while at:
      path.insert(0, int(tree.token[row, at]))
      at = tree.parent[row, at]
    out.add(tuple(path))
  return out


@pytest.mark.parametrize(
  "drafter", [Jacobi(3, 3, 2, buckets=VOCAB), Jacobi(1, 2, 3, buckets=7)], ids=["3-3-2", "1-2-3"]
)
def test_every_round_is_that_of_lookahead_decoding_in_plain_python(drafter):
  check(drafter)


@dataclasses.dataclass(frozen=True)
class Swapped(Jacobi):
  """Two tokens of an n-gram change places on their way into the pool."""

  def update(self, state, round):
    after = super().update(state, round)
    changed = jnp.any(after.pool != state.pool, axis=3, keepdims=True)
    mistaken = after.pool[..., jnp.array([0, 2, 1])]
    return after.replace(pool=jnp.where(changed, mistaken, after.pool))


@dataclasses.dataclass(frozen=True)
class Still(Jacobi):
  """The window does not move on with the text."""

  def update(self, state, round):
    of_one = super().update(state, round.replace(num_emitted=jnp.minimum(round.num_emitted, 1)))
    return super().update(state, round).replace(window=of_one.window)


@pytest.mark.parametrize("mistake", [Swapped, Still])
def test_mistakes_are_seen(mistake):
  with pytest.raises(AssertionError):
    check(mistake(3, 3, 2, buckets=VOCAB))


def proposed(drafter):
  state = drafter.start(None, jnp.zeros((1, 8), jnp.int32), jnp.array([8]), max_new=8)
  keys = jax.random.split(jax.random.key(0), 1)
  request = Request(Sampling().rules(1, VOCAB), jnp.array([8]), jnp.array([-1]), keys)
  context = Context(request, jnp.array([0]), jnp.array([1]), jnp.array([True]), None)
  return drafter.propose(None, state, context)[0].tree


@pytest.mark.parametrize(
  ("sizes", "entries"), [((15, 5, 15), 120), ((10, 5, 10), 80), ((7, 5, 7), 56), ((1, 2, 1), 2)]
)
def test_a_round_has_the_papers_number_of_entries(sizes, entries):
  # (N - 1)(W + G), the cost of a step in 2402.02057 and what its code says of 7B, 13B and 33B.
  assert jax.eval_shape(lambda: proposed(Jacobi(*sizes))).size == entries


def test_the_window_is_a_tree_of_columns_plus_levels():
  drafter = Jacobi(3, 4, 2, buckets=VOCAB)
  tree = jax.tree.map(lambda x: np.asarray(x)[0], jax.jit(lambda: proposed(drafter))())
  window = [0, *range(1 + 2 * 3, tree.token.size)]
  assert np.sort(tree.depth[window]).tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 4]
  assert np.all(tree.depth[1:] == tree.depth[tree.parent[1:]] + 1)
  siblings = list(zip(tree.parent.tolist(), tree.order.tolist(), strict=True))
  of_window = [siblings[node] for node in window[1:]]
  assert len(set(of_window)) == len(of_window)
  assert np.max(tree.order) < drafter.breadth and np.max(tree.depth) == drafter.height


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(window=0), "window must be at least 1, got 0"),
    (dict(ngram=1), "ngram must be at least 2, got 1"),
    (dict(guesses=0), "guesses must be at least 1, got 0"),
    (dict(buckets=0), "buckets must be at least 1, got 0"),
  ],
)
def test_settings_out_of_range(settings, message):
  with pytest.raises(ValueError, match=message):
    Jacobi(**settings)
