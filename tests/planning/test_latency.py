"""The latency profile: what is timed, in what order, and what is left out when time is short."""

import pytest

from mtjax.draft import PromptLookup
from mtjax.planning import measure_latency
from mtjax.text import TextModel
from tests.draft.drafters import LETTERS, PARAMS, TARGET

TEXT = TextModel(TARGET, PARAMS, LETTERS, "tiny")


def lookup(steps):
  return PromptLookup(length=steps)


def test_without_time_a_curve_has_what_it_needs_and_says_what_is_missing():
  said = []
  profile = measure_latency(
    TEXT, lookup, name="lookup", contexts=(32,), sizes=(1, 8), steps=(1, 3), seconds=0.0,
    progress=said.append,
  )  # fmt: skip
  curve = profile.at(1, 20)
  assert curve.verify.amount == (1, 2) and curve.draft.amount == (1,)
  assert "batch 1, context 32: no time for verify 4, rounds 3" in said
  assert "batch 1, context 32: no time for verify 8" in said
  assert curve.plain > curve.verify(1) / 3 > 0
  assert profile.of["drafter"] == "lookup" and profile.of["target"].startswith("tiny ")
  assert profile.of["dtype"] == "float32" and profile.of["mesh"] == "1"
  assert profile.of["verifier"] == "sample_match"


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(batches=()), r"batches must be one or more numbers of at least 1, got \[\]"),
    (dict(steps=(0,)), r"steps must be one or more numbers of at least 1, got \[0\]"),
    (dict(contexts=(100,), sizes=(64,)), "do not fit the model's 128 positions: give shorter"),
  ],
)
def test_sizes_that_cannot_be(settings, message):
  with pytest.raises(ValueError, match=message):
    measure_latency(TEXT, lookup, name="lookup", **settings)
