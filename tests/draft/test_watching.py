"""Plain rounds whose text is compared with what prompt lookup would have drafted."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.decode.generation import generate
from mtjax.decode.planned import Arm, Planned
from mtjax.decode.planned.watching import right_drafts
from mtjax.decode.speculative import Speculative
from mtjax.draft import PromptLookup
from mtjax.draft.text_buffer import TextBuffer
from mtjax.trees import chain
from mtjax.tuning.online.chooser import PLAIN, NextRounds, ScriptedChooser
from tests.draft.drafters import PARAMS, PROMPTS, TARGET

LOOKUP = PromptLookup(length=3)
ARMS = (
  Arm("short", Speculative(PromptLookup(length=1)), (2,)),
  Arm("lookup", Speculative(LOOKUP), (4,), of_text=LOOKUP),
)


def looked_up(text):
  """Returns what stands behind the latest of the longest repeats of the end of a text."""
  places = []
  for place in range(1, len(text)):
    before = reversed(text[max(place - LOOKUP.max_ngram, 0) : place])
    ends = zip(before, reversed(text), strict=False)
    repeats = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], ends)))
    places.append((repeats, place))
  repeats, place = max(places, default=(0, 0))
  copied = itertools.islice(itertools.cycle(text[place:]), LOOKUP.length)
  return list(copied) if repeats else []


def right_by_hand(text, known):
  """Returns how many drafts behind the first `known` tokens are the text's own."""
  pairs = zip(looked_up(text[:known]), text[known:], strict=False)
  return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def test_right_drafts_are_those_of_each_beginning_of_the_text():
  rng, window = np.random.default_rng(0), 9
  texts = [[0, 1, 2, 2] * 5, *(rng.integers(0, 3, size).tolist() for size in (14, 5))]
  size = max(map(len, texts))
  # The tokens behind the end of a text are padding.
  token = jnp.array([text + [1] * (size - len(text)) for text in texts])
  compare = jax.jit(right_drafts, static_argnums=(0, 2))
  found = compare(LOOKUP, TextBuffer(token, jnp.array(list(map(len, texts)))), window)
  for text, row in zip(texts, found.tolist(), strict=True):
    places = range(len(text) - window, len(text))
    assert row == [right_by_hand(text, place) if place > 0 else 0 for place in places]
  assert found.max() == 3 and found.min() == 0


def test_a_chooser_is_told_what_would_have_been_right_in_plain_rounds_and_the_text_is_the_same():
  orders = [
    NextRounds(PLAIN, chain(0), 3, True), NextRounds(2, chain(3), 2), NextRounds(1, chain(1), 1),
    NextRounds(PLAIN, chain(0), 2), NextRounds(PLAIN, chain(0), 4, True),
  ]  # fmt: skip
  method = Planned(ARMS, max_rounds=4, watch="lookup")
  limits = (24, 40, 9)
  plain = generate(TARGET, PARAMS, PROMPTS, max_tokens=limits)
  chooser = ScriptedChooser(lambda number: orders[number % len(orders)])
  params = chooser.handle, (None, None)
  out = generate(
    TARGET, PARAMS, PROMPTS, method=method, method_params=params, max_tokens=limits
  )  # fmt: skip
  assert out.tokens == plain.tokens
  texts = [[*prompt, *row] for prompt, row in zip(PROMPTS, plain.tokens, strict=True)]
  told = [(order, report.watched) for order, report, _ in chooser.reports]
  assert [watched is not None for _, watched in told] == [order.watch for order, _ in told]
  seen = [watched for _, watched in told if watched is not None]
  assert len(seen) >= 4
  for watched in seen:
    assert watched.height == LOOKUP.height
    for text, right, length in zip(texts, watched.right, watched.length, strict=True):
      places = range(length - len(right), length)
      assert len(right) == 4 + LOOKUP.height
      assert right == [right_by_hand(text[:length], place) if place > 0 else 0 for place in places]
  assert max(map(max, seen[-1].right)) > 0
  ends = [watched.length for watched in seen]
  # The tokens since the last question; a row that has ended has none.
  orders_of = [order for order, watched in told if watched is not None]
  for order, watched in zip(orders_of, seen, strict=True):
    each = np.subtract(watched.length, watched.begin)
    assert each.max() == order.rounds and set(each.tolist()) <= {0, *range(1, order.rounds + 1)}
  assert seen[-1].begin[2] == seen[-1].length[2]
  assert ends[-1][2] == len(texts[2]) and ends[-1][1] > ends[0][1]


def test_only_chains_that_follow_from_the_text_can_be_watched():
  for name in ("short", "other"):
    with pytest.raises(ValueError, match=f"'{name}' cannot be watched: .* the arms are short, loo"):
      Planned(ARMS, watch=name)
  branched = PromptLookup(length=2, branches=2)
  with pytest.raises(
    ValueError, match="'x' drafts up to 2 tokens per node, and only chains are watc"
  ):
    Arm("x", Speculative(branched), (5,), of_text=branched)
