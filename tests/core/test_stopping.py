"""Stop strings are found wherever they fall, however the text was cut into tokens."""

import itertools

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtjax.rounds.stop_strings import StopStrings

PIECES = [b"a", b"b", b"ab", b"ba", b"aab", b"\n", b"", "é".encode(), b"bb\n"]


def _ends_at(stops, tokens):
  """Index of the token during which a stop string first ends, or None."""
  automaton = StopStrings.compile(stops, PIECES)
  state = jnp.zeros(1, jnp.int32)
  for index, token in enumerate(tokens):
    state = automaton.advance(state, jnp.array([token]))
    if state[0] < 0:
      return index
  return None


@given(
  st.lists(st.text("ab\né", min_size=1, max_size=4), min_size=1, max_size=3),
  st.lists(st.integers(0, len(PIECES) - 1), max_size=8),
)
def test_against_searching_the_text(stops, tokens):
  expected = None
  for index in range(len(tokens)):
    text = b"".join(PIECES[token] for token in tokens[: index + 1])
    if any(stop.encode() in text for stop in stops):
      expected = index
      break
  assert _ends_at(stops, tokens) == expected


def test_inside_one_token():
  assert _ends_at(["b"], [0, 4, 0]) == 1


def test_overlapping_prefixes_are_not_lost():
  # After "aa", a third "a" keeps "aa" as the match of "aab" so far.
  assert _ends_at(["aab"], [0, 0, 0, 1]) == 3


def test_a_match_stays():
  automaton = StopStrings.compile(["a"], PIECES)
  state = automaton.advance(jnp.array([-1]), jnp.array([1]))
  assert state[0] == -1


@pytest.mark.parametrize("stops", [[], [""], ["a", ""]])
def test_empty_stop_strings_are_refused(stops):
  with pytest.raises(ValueError, match="at least one character"):
    StopStrings.compile(stops, PIECES)


SPECIAL = {"<s>": 9, "<s>!": 10, "<pad>": 11}
SPELLED = [*PIECES, b"", b"", b"", b"<", b"s>", b"!"]


def _first_stop(stops, tokens, special=SPECIAL):
  automaton = StopStrings.compile(stops, SPELLED, special)
  state = jnp.zeros(1, jnp.int32)
  for index, token in enumerate(tokens):
    state = automaton.advance(state, jnp.array([token]))
    if state[0] < 0:
      return index
  return None


def _found_by_search(stops, tokens):
  """The definition: a stop is found if, without some of the special tokens, the text holds it.

  Special tokens are letters of their own here, and a stop is read with and without them.
  """
  letters = {9: "\1", 10: "\2", 11: "\3"}
  readings = [
    stop.replace("<s>!", "\2").replace("<s>", "\1").replace("<pad>", "\3") for stop in stops
  ]
  places = [i for i, token in enumerate(tokens) if token in letters]
  for kept in itertools.product([False, True], repeat=len(places)):
    dropped = {place for place, keep in zip(places, kept, strict=True) if not keep}
    text = "".join(
      letters.get(token, SPELLED[token].decode())
      for place, token in enumerate(tokens)
      if place not in dropped
    )
    if any(stop in text for stop in (*stops, *readings)):
      return True
  return False


_STOPS = st.lists(st.sampled_from(["a", "b", "<s>", "!", "<pad>", "\n"]), min_size=1, max_size=4)


@given(
  st.lists(_STOPS.map("".join), min_size=1, max_size=3),
  st.lists(st.integers(0, len(SPELLED) - 1), max_size=8),
)
def test_with_special_tokens_against_the_definition(stops, tokens):
  ends = [_found_by_search(stops, tokens[: end + 1]) for end in range(len(tokens))]
  assert _first_stop(stops, tokens) == (ends.index(True) if any(ends) else None)


@pytest.mark.parametrize(
  ("stop", "tokens", "found"),
  [
    ("<s>", [0, 9, 1], 1),
    ("<s>", [0, 12, 13, 1], 2),  # written as text
    ("<s>", [10, 11], None),
    ("<s>!", [9, 14], None),  # the longest spelling is the token that is meant
    ("<s>!", [10], 0),
    ("<s>\n", [9, 11, 5], 2),
    ("a<s>b", [2, 0, 9, 0, 9, 3], 5),
    ("ab", [0, 9, 1], 2),  # a special token does not show in the text
    ("<s>", [9], 0),
  ],
)
def test_a_special_token_is_found_by_its_id(stop, tokens, found):
  assert _first_stop([stop], tokens) == found


def test_ids_past_the_vocabulary_stand_for_nothing():
  assert _first_stop(["!"], [0, 15, 99, 0]) is None, "15 would be the last token, which is '!'"
  assert _first_stop(["aa"], [0, 15, 99, 0]) == 3
