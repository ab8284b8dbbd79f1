"""Acceptance by replay and by recorded decoding: the same numbers, from one text."""

import numpy as np
import pytest

from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import ModelChain, ModelTree, PromptLookup
from mtjax.planning import measure_acceptance
from mtjax.planning.acceptance import replayed_rounds
from mtjax.planning.text_rounds import text_rounds
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from mtjax.trees import chain, k_ary
from mtjax.tuning.profiles import count_history
from tests.draft.drafters import LETTERS, PARAMS, SMALL, SMALL_PARAMS, TARGET

TEXT = TextModel(TARGET, PARAMS, LETTERS, "tiny")
TEXTS = {"code": ["abcab", "eee"], "list": ["hijhijh"]}
SHAPE = k_ary((3, 2))
SETTINGS = dict(name="draft", texts=TEXTS, max_tokens=40)


@pytest.fixture(scope="module")
def decoded():
  return measure_acceptance(
    TEXT, ModelTree(SMALL, SHAPE), SMALL_PARAMS, shape=SHAPE, replay=False, **SETTINGS
  )


def test_replayed_rounds_are_those_of_decoding(decoded):
  settings = dict(shape=SHAPE, **SETTINGS)
  replayed = measure_acceptance(TEXT, ModelTree(SMALL, SHAPE), SMALL_PARAMS, **settings)
  for domain in TEXTS:
    mine, true = replayed.counts(domain), decoded.counts(domain)
    np.testing.assert_array_equal(mine.tried, true.tried)
    np.testing.assert_array_equal(mine.accepted, true.accepted)
    assert mine.rounds == true.rounds > 0
  # The control: a model of other weights has other counts.
  other = measure_acceptance(TEXT, ModelTree(TARGET, SHAPE), PARAMS, **settings)
  assert np.any(other.counts().accepted != decoded.counts().accepted)


def test_shares_of_every_place_lie_in_the_interval_of_decoding(decoded):
  every = measure_acceptance(TEXT, ModelChain(SMALL, 2), SMALL_PARAMS, breadth=3, **SETTINGS)
  low, high = decoded.interval()
  assert every.counts().rounds > 1.2 * decoded.counts().rounds
  share = every.rates()[:, :3]
  assert np.all((low[0] <= share[0]) & (share[0] <= high[0]))


def test_what_cannot_be_replayed_is_recorded():
  profile = measure_acceptance(
    TEXT, PromptLookup(length=3), name="lookup", texts=TEXTS, max_tokens=24, shape=chain(3)
  )
  method, ids = Speculative(PromptLookup(length=3)), [LETTERS.encode(x) for x in TEXTS["list"]]
  run = generate(TARGET, PARAMS, ids, method=method, max_tokens=24, history=True)
  alone = count_history(run.history[1:], shape=chain(3))
  np.testing.assert_array_equal(profile.counts("list").accepted, alone.accepted)
  np.testing.assert_array_equal(profile.counts("list").tried, alone.tried)
  assert profile.of["target"].startswith("tiny ") and profile.of["drafter"] == "lookup"
  assert profile.of["sampling"] == "greedy"
  # The text alone says the same.
  plain = generate(TARGET, PARAMS, ids, max_tokens=24)
  (counted,) = text_rounds(PromptLookup(length=3), ids, plain.tokens)
  np.testing.assert_array_equal(counted.tried, alone.tried)
  np.testing.assert_array_equal(counted.accepted, alone.accepted)
  assert counted.rounds == alone.rounds and counted.accepted[0, 0] > 0
  with pytest.raises(ValueError, match="there is no text to count rounds in"):
    text_rounds(PromptLookup(length=3), [], [])


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=1.0)], ids=["lookup", "sampled"])
def test_a_replay_that_cannot_be_is_refused(sampling):
  drafter = PromptLookup() if sampling is None else ModelChain(SMALL, 2)
  with pytest.raises(ValueError, match="cannot be replayed: only greedy requests with drafts of"):
    measure_acceptance(TEXT, drafter, name="x", texts=TEXTS, sampling=sampling, replay=True)


def test_no_text_is_refused():
  with pytest.raises(ValueError, match="there is no text to calibrate with"):
    measure_acceptance(TEXT, PromptLookup(), name="lookup", texts={})


def test_replayed_rounds_by_hand():
  # Tokens after the first: rank 0, 1, 5 | 0, 0, bonus | 2 (refused) | 0, the end.
  counts = replayed_rounds(np.array([9, 0, 1, 5, 0, 0, 7, 2, 0]), k_ary((2, 2)))
  assert counts.rounds == 4
  np.testing.assert_array_equal(counts.tried, [[4, 4], [2, 2]])
  np.testing.assert_array_equal(counts.accepted, [[3, 0], [1, 1]])
