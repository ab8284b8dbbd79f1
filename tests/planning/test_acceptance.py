"""Acceptance by replay and by recorded decoding: the same numbers, from one text."""

import functools
import operator

import jax
import numpy as np
import pytest

from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import ModelChain, ModelTree, PromptLookup
from mtjax.planning import measure_acceptance
from mtjax.planning.acceptance import _replayed, replayed_rounds
from mtjax.planning.text_rounds import text_rounds
from mtjax.planning.texts import name_of
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from mtjax.trees import chain, k_ary
from mtjax.tuning.profiles import count_history
from tests.draft.drafters import LETTERS, PARAMS, TARGET

TEXT = TextModel(TARGET, PARAMS, LETTERS, "tiny")
TEXTS = {"code": ["abcab", "eee"], "list": ["hijhijh"]}
SHAPE = k_ary((3, 2))
SETTINGS = dict(name="draft", max_tokens=40)

_NOISE = np.random.default_rng(9)
# A drafter that often agrees with the target: its own weights, disturbed.
DRAFT_PARAMS = jax.tree.map(
  lambda x: x + 0.2 * np.std(x) * _NOISE.normal(size=x.shape).astype(np.float32), PARAMS
)


def decoding(texts):
  """Returns the profile of real rounds with trees."""
  return measure_acceptance(
    TEXT, ModelTree(TARGET, SHAPE), DRAFT_PARAMS, shape=SHAPE, replay=False, texts=texts, **SETTINGS
  )


def every_place(texts):
  """Returns the profile of all places of the target's own texts."""
  drafter = ModelChain(TARGET, SHAPE.height)
  return measure_acceptance(
    TEXT, drafter, DRAFT_PARAMS, breadth=SHAPE.breadth, texts=texts, **SETTINGS
  )


@pytest.fixture(scope="module")
def decoded():
  return decoding(TEXTS)


def test_replayed_rounds_are_those_of_decoding(decoded, tmp_path):
  settings = dict(shape=SHAPE, texts=TEXTS, **SETTINGS)
  replayed = measure_acceptance(TEXT, ModelTree(TARGET, SHAPE), DRAFT_PARAMS, **settings)
  for domain in TEXTS:
    mine, true = replayed.counts(domain), decoded.counts(domain)
    np.testing.assert_array_equal(mine.tried, true.tried)
    np.testing.assert_array_equal(mine.accepted, true.accepted)
    assert mine.rounds == true.rounds > 0
  # Counts of another way, of other texts or of other sizes are not those of the same profile.
  replayed.save(tmp_path / "profile.json")
  with pytest.raises(ValueError, match="of replay 'True' and not 'False'"):
    decoded.save(tmp_path / "profile.json")
  own = dict(texts=name_of(TEXTS), max_tokens="40", verifier="sample_match", sampling="greedy")
  assert own.items() <= replayed.of.items() and str(SHAPE.parent) in replayed.of["shape"]
  # Prompts may be token ids, those of numpy too.
  ids = {name: [np.array(LETTERS.encode(one)) for one in own] for name, own in TEXTS.items()}
  drafter, settings = ModelTree(TARGET, SHAPE), dict(shape=SHAPE, **SETTINGS)
  of_ids = measure_acceptance(TEXT, drafter, DRAFT_PARAMS, texts=ids, **settings)
  np.testing.assert_array_equal(of_ids.counts().accepted, replayed.counts().accepted)
  # The control: a model of other weights has other counts.
  other = measure_acceptance(TEXT, drafter, PARAMS, texts=TEXTS, **settings)
  assert np.any(other.counts().accepted != decoded.counts().accepted)


def shares(counts):
  return counts.accepted / np.maximum(counts.tried, 1)


def within(profile, share):
  low, high = profile.interval()
  return (low <= share) & (share <= high)


def test_decoding_accepts_as_often_as_the_interval_of_a_profile_says(decoded):
  profile, seen = every_place(TEXTS), decoded.counts()
  assert profile.counts().rounds > 2 * seen.rounds
  enough = seen.tried >= 30
  assert enough[:2].any(axis=1).all() and enough.sum() >= 4, "too few tries: take another seed"
  assert within(profile, shares(seen))[enough].all()


def test_intervals_of_profiles_hold_in_texts_that_were_not_measured():
  rng = np.random.default_rng(1)

  def texts():
    # As many prompts and tokens as TEXTS has, so that the programs are the same.
    words = ["".join(rng.choice(list("abcdefghijkl"), length)) for length in (5, 3, 7)]
    return {"code": words[:2], "list": words[2:]}

  seen = functools.reduce(operator.add, (decoding(texts()).counts() for _ in range(8)))
  enough, profiles = seen.tried >= 300, [every_place(texts()) for _ in range(8)]
  assert enough[:2].any(axis=1).all() and enough.sum() >= 4, "too few tries: take another seed"
  # Each interval is one of 95 % of trials that depend on nothing. Those of one text depend on each
  # other, so fewer of the intervals hold.
  held = [within(one, shares(seen))[enough].mean() for one in profiles]
  assert np.mean(held) > 0.7
  # The control: with the shares of other ranks they do not.
  other = [within(one, np.roll(shares(seen), 1, axis=1))[enough].mean() for one in profiles]
  assert np.mean(other) < 0.2


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
  drafter = PromptLookup() if sampling is None else ModelChain(TARGET, 2)
  with pytest.raises(ValueError, match="cannot be replayed: only greedy requests with drafts of"):
    measure_acceptance(TEXT, drafter, name="x", texts=TEXTS, sampling=sampling, replay=True)


def test_no_text_is_refused():
  with pytest.raises(ValueError, match="there is no text to calibrate with"):
    measure_acceptance(TEXT, PromptLookup(), name="lookup", texts={})


def test_one_place_with_all_depths_behind_it_is_enough():
  counts = _replayed(np.array([9, 0, 1]), None, 2, 3)
  assert counts.rounds == 1 and counts.accepted.tolist() == [[1, 0, 0], [0, 1, 0]]
  settings = dict(name="draft", texts=TEXTS, max_tokens=7)
  with pytest.raises(ValueError, match="texts of 7 tokens are too short for 7 depths: write at le"):
    measure_acceptance(TEXT, ModelChain(TARGET, 7), DRAFT_PARAMS, **settings)


def test_replayed_rounds_by_hand():
  # Tokens after the first: rank 0, 1, 5 | 0, 0, bonus | 2 (refused) | 0, the end.
  counts = replayed_rounds(np.array([9, 0, 1, 5, 0, 0, 7, 2, 0]), k_ary((2, 2)))
  assert counts.rounds == 4
  np.testing.assert_array_equal(counts.tried, [[4, 4], [2, 2]])
  np.testing.assert_array_equal(counts.accepted, [[3, 0], [1, 1]])
