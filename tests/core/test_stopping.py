"""Stop strings are found wherever they fall, however the text was cut into tokens."""

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtjax.stopping import StopStrings

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
