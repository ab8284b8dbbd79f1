"""Recorded answers, and what rounds with drafts of prompt lookup do in them."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np

from mtjax.tuning import Siblings
from mtjax.tuning.online import Menu, ProfiledDrafter, Replanner
from mtjax.tuning.online.watching import Watched, watched_rounds
from mtjax.tuning.profiles import AcceptanceCounts, AcceptanceProfile, LatencyProfile, fit_curve

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 15  # drafts after each token
SIZES = (2, 4, 6, 8, 12, 16)  # entries of a round, of which passes were measured
WATCHED = f"lookup:length={LONGEST}"
# By name: the results file, weights and threads of the measured curves on which the best number of
# drafts of each domain loses 5 % or more in the other, in both halves of the texts. This rule was
# set before any replanner was tried; the texts were changed to meet it (edits did not, and code is
# cut where prose follows).
CURVES = {
  "AVX2, float32, 1 thread": ("verification.json", "float32", 1),
  "AVX2, bfloat16, 1 thread": ("verification.json", "bfloat16", 1),
  "AVX2, bfloat16, 2 threads": ("verification.json", "bfloat16", 2),
  "AVX2, int8, 2 threads": ("verification.json", "int8", 2),
  "AVX-512, float32, 1 thread": ("verification_avx512.json", "float32", 1),
  "AVX-512, float32, 2 threads": ("verification_avx512.json", "float32", 2),
  "AVX-512, bfloat16, 2 threads": ("verification_avx512.json", "bfloat16", 2),
  "AVX-512, int8, 1 thread": ("verification_avx512.json", "int8", 1),
}
# Lookup compares tokens and runs no model: what it takes per round is an assumption.
_DRAFT = 1e-4


@functools.cache
def _recording():
  return json.loads((ROOT / "tests" / "fixtures" / "copied_texts.json").read_text("utf-8"))


@functools.cache
def texts(part):
  """Returns recorded texts by domain: those to calibrate with, or those to test with."""
  begin = ("calibration", "test").index(part)
  return {
    domain: [tuple(int(digit, 16) for digit in text) for text in each[begin::2]]
    for domain, each in _recording()["texts"].items()
  }


def _round(text, place, steps):
  """Returns what a round tried and accepted in a text after `place` tokens, and where it ends.

  text[i] drafts after token i are right. Behind the last token nothing is judged.
  """
  rest = len(text) - place
  right = min(text[place - 1], steps, rest)
  tried, accepted = np.zeros((2, max(steps, 1), 1), np.int64)
  tried[: min(right + 1, steps, rest)] = 1
  accepted[:right] = 1
  return tried, accepted, min(place + right + 1, len(text))


def step(text, place, steps):
  """Returns the counts of a round in a text after `place` tokens, and where the next one begins."""
  tried, accepted, end = _round(text, place, steps)
  return AcceptanceCounts(tried, accepted, 1), end


def counted(text, steps):
  """Returns the counts of a whole text with drafts of one length; its first token is given."""
  tried, accepted = np.zeros((2, max(steps, 1), 1), np.int64)
  place, rounds = 1, 0
  while place < len(text):
    one, two, place = _round(text, place, steps)
    tried, accepted, rounds = tried + one, accepted + two, rounds + 1
  return AcceptanceCounts(tried, accepted, rounds)


def total(each, steps):
  """Returns the counts of several texts."""
  return functools.reduce(lambda one, two: one + two, [counted(text, steps) for text in each])


def passes(file, weights, threads):
  """Returns entries and seconds of passes of SmolLM2 from a results file of verification."""
  rows = json.loads((ROOT / "results" / file).read_text(encoding="utf-8"))["rows"]
  return [
    (row["entries"], row["seconds"])
    for row in rows
    if row["weights"] == weights and row["threads"] == threads and row["entries"] <= max(SIZES)
  ]


@functools.cache
def measured(curve):
  """Returns the times of a recorded curve, by its name."""
  points = _recording()["passes"][curve]
  curve = fit_curve(1, 256, verify=points, draft=[(1, _DRAFT), (LONGEST, _DRAFT)])
  return LatencyProfile(dict(device="cpu", target="smollm2", drafter="lookup"), (curve,))


def seconds(latency, steps):
  """Returns the time of a round with so many drafts; 0: of plain decoding."""
  curve = latency.at(1)
  if not steps:
    return curve.plain
  return float(curve.round_seconds(min(size for size in SIZES if size > steps), steps))


@functools.cache
def rounds_of(text, steps):
  """Returns the rounds of a whole text with drafts of one length; its first token is given."""
  place, rounds = 1, 0
  while place < len(text):
    place, rounds = place + min(text[place - 1], steps) + 1, rounds + 1
  return rounds


def static(latency, each):
  """Returns the tokens per second in texts, by drafts per round; 0: of plain decoding."""
  tokens = sum(len(text) - 1 for text in each)
  rounds = [sum(rounds_of(text, steps) for text in each) for steps in range(LONGEST + 1)]
  return np.array(
    [tokens / (count * seconds(latency, steps)) for steps, count in enumerate(rounds)]
  )


@functools.cache
def profiles(part):
  """Returns the acceptance profile of each length in recorded texts, by the drafter's name."""
  return {
    f"lookup:length={size - 1}": AcceptanceProfile(
      dict(target="smollm2", drafter=f"lookup:length={size - 1}"),
      {domain: total(each, size - 1) for domain, each in texts(part).items()},
    )
    for size in SIZES
  }


def planner(latency, part, **settings):
  """Returns a replanner of lookup with several lengths, by the texts of a part.

  Each length has rates of its own, as auto has them: a short round may go on with a copy that the
  last one did not end. In plain rounds, the longest drafts are compared with the text.
  """
  known = profiles(part)
  drafters = [
    ProfiledDrafter(name, profile, latency, Siblings.ONE) for name, profile in known.items()
  ]
  fresh = Replanner(drafters, **{"watched": WATCHED, **settings})
  sets = [fresh.competitors(1, domain) for domain in texts(part)]
  sizes = {name: [size] for name, size in zip(known, SIZES, strict=True)}
  return dataclasses.replace(fresh, menu=Menu.of(sets, sizes, whole=list(sizes)))


def replayed(fresh, latency, each):
  """Yields of every round the number of its text, its drafts, and whether it is a probe."""
  state, begin = fresh.start(1), None
  for number, text in enumerate(each):
    place = 1
    while place < len(text):
      steps = state.choice.steps
      yield number, steps, state.probing > 0
      took, (counts, after) = seconds(latency, steps), step(text, place, steps)
      if steps:
        begin = None
      elif fresh.watched is None:
        counts = None
      else:
        counts, begin = _watched(text, after, place if begin is None else begin)
      place = after
      if place == len(text):
        begin = None
      state = fresh.observe(state, seconds=took, counts=counts)


def _watched(text, length, begin):
  """Returns the counts of rounds of 15 drafts that end within the first tokens of a text.

  And where the next one begins.
  """
  right = [0, *(min(text[place - 1], length - place) for place in range(1, length))]
  counts, (end,) = watched_rounds(Watched([right], [length], [begin], LONGEST))
  return counts, end
