"""Constraints on a canvas: against every completion, and over whole denoising runs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.constraints import join
from mtjax.constraints.canvas import allowed_on_canvas, decide_along, is_completable
from mtjax.sampling.logits import Sampling
from tests.constraints.toys import complete_texts, dfa_of

VOCAB, EOS, LENGTH = 4, 3, 5
# (0 1* 2 | 2 2)+ and (0 | 1)* 2
PAIRS = dfa_of([{0: 1, 2: 2}, {1: 1, 2: 3}, {2: 3}, {0: 1, 2: 2}], {3}, VOCAB)
LAST = dfa_of([{0: 0, 1: 0, 2: 1}, {}], {1}, VOCAB)
DFAS = [PAIRS, LAST, None]
PROMPT, PADDING = 2, 1  # positions of a row that are outside of its text
SIZE = PROMPT + LENGTH + PADDING
TEXTS = [set(complete_texts(dfa, LENGTH, VOCAB, EOS)) for dfa in (PAIRS, LAST)]
TEXTS.append(set(itertools.product(range(VOCAB), repeat=LENGTH)))
allowed_, decide_, completable_ = map(jax.jit, (allowed_on_canvas, decide_along, is_completable))


def canvases(rng, rows, share):
  """Canvases that can be completed: accepted texts, some positions of which are masked."""
  token = rng.integers(0, VOCAB, (rows, SIZE))
  for row in range(rows):
    texts = sorted(TEXTS[row % 3])
    token[row, PROMPT : PROMPT + LENGTH] = texts[rng.integers(len(texts))]
  inside = np.zeros((rows, SIZE), bool)
  inside[:, PROMPT : PROMPT + LENGTH] = True
  free = inside & (rng.random((rows, SIZE)) < share)
  return token, free, inside


def all_of(rows):
  return jnp.broadcast_to(jnp.arange(SIZE), (rows, SIZE))


def text(row):
  return row[PROMPT : PROMPT + LENGTH]


def tables(rows):
  return join([DFAS[row % 3] for row in range(rows)], [LENGTH] * rows, VOCAB, [EOS])


def test_allowed_tokens_are_those_of_all_completions():
  rows = 60
  token, free, inside = canvases(np.random.default_rng(0), rows, 0.6)
  found = np.asarray(allowed_(tables(rows), *map(jnp.asarray, (token, free, inside)), all_of(rows)))
  assert found[:, ~inside[0]].all()
  for row in range(rows):
    known = ~text(free[row])
    for place in range(LENGTH):
      fixed = [n for n in range(LENGTH) if known[n] and n != place]
      fits = {
        one[place] for one in TEXTS[row % 3] if all(one[n] == text(token[row])[n] for n in fixed)
      }
      assert set(np.flatnonzero(found[row, PROMPT + place])) == fits


def test_canvases_that_cannot_be_completed_are_seen():
  token, free, inside = canvases(np.random.default_rng(1), 60, 0.5)
  token[:, PROMPT] = (token[:, PROMPT] + 1) % VOCAB
  free[:, PROMPT] = False
  found = np.asarray(completable_(tables(60), *map(jnp.asarray, (token, free, inside))))
  for row in range(60):
    known = np.flatnonzero(~text(free[row]))
    fits = any(all(one[n] == text(token[row])[n] for n in known) for one in TEXTS[row % 3])
    assert found[row] == fits
  assert 0 < found.sum() < 60


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_k=1)])
@pytest.mark.parametrize("at_once", [1, 2, LENGTH])
def test_every_text_of_a_denoising_run_is_accepted(sampling, at_once):
  """Random positions, some of them decided again, with logits that know nothing of the automata.

  top_k=1: filters count after the masks, or nothing would be left of most positions.
  """
  rows, rng = 96, np.random.default_rng(2)
  token, _, inside = canvases(rng, rows, 1.0)
  free, automata, rules = inside.copy(), tables(rows), sampling.rules(rows, VOCAB)
  for step in range(20):
    logits = rng.normal(size=(rows, SIZE, VOCAB)) * 3
    score = np.where(free, rng.random((rows, SIZE)), -1)
    decide = free & (np.argsort(np.argsort(-score, axis=1), axis=1) < at_once)
    decide |= inside & ~free & (rng.random((rows, SIZE)) < (0.2 if step < 10 else 0))
    keys = jax.random.split(jax.random.key(step), (rows, SIZE))
    args = [jnp.asarray(x) for x in (logits, token, free, inside, all_of(rows), decide)]
    new = np.asarray(decide_(automata, rules, *args, keys))
    assert (new == token)[~decide].all()
    token, free = new, free & ~decide
    assert np.asarray(completable_(automata, *map(jnp.asarray, (token, free, inside)))).all()
  assert not free.any()
  assert all(tuple(text(token[row])) in TEXTS[row % 3] for row in range(rows))


def test_positions_restricted_alone_are_not_enough():
  """The negative control: each position allowed by itself, all decided in one pass."""
  rows, rng = 96, np.random.default_rng(3)
  token, free, inside = canvases(rng, rows, 1.0)
  allowed = allowed_(tables(rows), *map(jnp.asarray, (token, free, inside)), all_of(rows))
  alone = np.asarray(
    jnp.argmax(jnp.where(allowed, rng.normal(size=allowed.shape), -np.inf), axis=2)
  )
  refused = [tuple(text(alone[row])) not in TEXTS[row % 3] for row in range(rows)]
  assert sum(refused) > rows / 4


def test_a_candidate_stays_where_it_is_allowed():
  """With the key of the candidate the sample is the candidate, if the joint check lets it."""
  rows, rng = 30, np.random.default_rng(4)
  token, free, inside = canvases(rng, rows, 0.5)
  logits = jnp.asarray(rng.normal(size=(rows, SIZE, VOCAB)))
  keys = jax.random.split(jax.random.key(0), (rows, SIZE))
  rules, automata = Sampling(temperature=1.0).rules(rows, VOCAB), tables(rows)
  unbound = join([None] * (rows - 1) + [LAST], [LENGTH] * rows, VOCAB, [EOS])
  given = [jnp.asarray(x) for x in (token, free, inside)]
  allowed = np.asarray(allowed_(automata, *given, all_of(rows)))
  for place in range(PROMPT, PROMPT + LENGTH):
    decide = jnp.asarray((np.arange(SIZE) == place) & free)
    candidate = np.asarray(decide_(unbound, rules, logits, *given, all_of(rows), decide, keys))[:-1]
    found = np.asarray(decide_(automata, rules, logits, *given, all_of(rows), decide, keys))[:-1]
    fits = allowed[np.arange(rows - 1), place, candidate[:, place]]
    same = found[:, place] == candidate[:, place]
    assert (same == fits)[np.asarray(decide)[:-1, place]].all()
