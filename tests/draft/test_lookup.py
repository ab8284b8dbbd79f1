"""Prompt lookup beside the obvious program: a copy that goes on past the end of the text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtjax.draft import Context, PromptLookup
from mtjax.draft.text_buffer import TextBuffer

SIZE = 24
DRAFTER = PromptLookup(length=6, max_ngram=3, min_ngram=1)


@jax.jit
def propose(token, length):
  text = TextBuffer(token, length)
  last = jnp.take_along_axis(token, length[:, None] - 1, axis=1)[:, 0]
  context = Context(None, last, jnp.full_like(length, 2), length > 0, None)
  return DRAFTER.propose(None, text, context)[0].tree


def drafted(text):
  token = jnp.array([text + [9] * (SIZE - len(text))])  # 9: what must not be read
  tree = propose(token, jnp.array([len(text)]))
  return tree.token[0][tree.valid[0]].tolist()[1:]


def expected(text):
  """One place after the other, one token after the other."""

  def repeated(place):
    matches = [text[place - back] == text[-back] for back in range(1, min(place, 3) + 1)]
    return [*matches, False].index(False)

  place = max(range(len(text)), key=lambda place: (repeated(place), place))
  if repeated(place) < 1:
    return []
  copied = list(text)
  for _ in range(6):
    copied.append(copied[place])
    place += 1
  return copied[len(text) :]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=SIZE))
def test_drafts_are_those_of_the_obvious_program(text):
  assert drafted(text) == expected(text)


@pytest.mark.parametrize("period", [1, 2, 3, 4, 5])
def test_a_text_that_repeats_itself_is_drafted_to_the_full_length(period):
  text = [i % period for i in range(2 * period)]
  assert drafted(text) == [i % period for i in range(6)]


def test_nothing_is_drafted_for_a_token_that_is_new():
  assert drafted([0, 1, 0, 2]) == []


def test_shorter_matches_than_min_ngram_draft_nothing():
  drafts_of = jax.jit(PromptLookup(length=4, min_ngram=2).propose)

  def count(text):
    state = TextBuffer(jnp.array([text]), jnp.array([len(text)]))
    context = Context(None, jnp.array(text[-1:]), jnp.array([2]), jnp.array([True]), None)
    return int(np.sum(drafts_of(None, state, context)[0].tree.valid)) - 1

  assert count([5, 1, 2, 3, 5]) == 0
  assert count([4, 5, 1, 2, 3, 4, 5]) == 4


def test_the_survival_of_a_branch_follows_from_the_number_of_tokens_that_repeat():
  """After (1, 2) came 7, 3, and after another 2 came 8, 1: two repeated tokens, and one."""
  tree = PromptLookup(length=2, branches=2)
  text = jnp.array([[5, 1, 2, 7, 3, 2, 8, 1, 2]])
  context = Context(None, text[:, -1], jnp.array([2]), jnp.array([True]), None)
  draft, _ = tree.propose(None, TextBuffer(text, jnp.array([9])), context)
  assert draft.tree.token.tolist() == [[2, 7, 3, 8, 1]]
  assert draft.survival[0].tolist() == pytest.approx([1, 0.6, 0.6 * 0.75, 0.25, 0.25 * 0.6])
