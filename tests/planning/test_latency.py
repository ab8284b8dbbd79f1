"""The latency profile: what is timed, in what order, and what is left out when time is short."""

import dataclasses
from unittest import mock

import jax
import pytest

from mtjax.draft import PromptLookup
from mtjax.models import Model
from mtjax.planning import latency, measure_latency
from mtjax.text import TextModel
from tests.draft.drafters import LETTERS, PARAMS, TARGET

TEXT = TextModel(TARGET, PARAMS, LETTERS, "tiny")
LONG = TextModel(
  Model(dataclasses.replace(TARGET.config, max_position=1024)), PARAMS, LETTERS, "tiny"
)
OF = dict(device="a clock", target="tiny", drafter="lookup")
# Seconds of passes by entries: the larger pass takes less, as it may happen in a measurement.
FALLING = {64: 0.080, 128: 0.076}


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


def test_a_mesh_of_several_processes_is_refused(monkeypatch):
  monkeypatch.setattr(latency.hosts, "is_shared", lambda mesh: True)
  with pytest.raises(ValueError, match="a latency profile is of one process, and the mesh has dev"):
    measure_latency(TEXT, lookup, name="lookup", contexts=(32,), sizes=(1,))


class Clock:
  """A machine on which everything takes as long as a formula says, and nothing is computed.

  Verifying takes 10 ms and 1 ms per entry, drafting 2 ms per step, but 8 ms more from step 5 on,
  and a round 3 ms more. Everything takes `compiling` seconds more when it runs for the first time.
  """

  def __init__(self, compiling: float = 0.0, full: int = 1000):
    self.now, self.compiling, self.full = 0.0, compiling, full
    self.ran: list[tuple[int, int, str, int]] = []

  def perf_counter(self) -> float:
    return self.now

  def timed(self, batch: int, context: int, kind: str, amount: int) -> latency._Timed:
    def run():
      if kind == "verify" and amount >= self.full:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
      key = (batch, context, kind, amount)
      self.now += 0.0 if key in self.ran else self.compiling
      self.ran.append(key)
      if kind == "verify":
        seconds = FALLING.get(amount, 0.010 + 0.001 * amount)
      else:
        seconds = 0.003 + 0.010 + 0.001 * (amount + 1) + 0.002 * amount + 0.008 * (amount >= 5)
      seconds *= batch + context / 1000
      self.now += 3 * seconds
      # The middle one of three counts, and so does that of all runs.
      return [0.9 * seconds, seconds, 5 * seconds]

    return latency._Timed(kind, amount, run)

  def measure(self, **settings):
    clock = self

    class Bench(latency._Bench):
      def verify(self, sizes):
        return [clock.timed(self.batch, self.context, "verify", size) for size in sizes]

      def rounds(self, kind, amount, method, params):
        return clock.timed(self.batch, self.context, kind, amount)

      def paced(self, longest):
        return self

    with mock.patch.multiple(latency, _Bench=Bench, time=clock):
      return measure_latency(LONG, lookup, name="lookup", of=OF, **settings)


def test_every_batch_and_context_has_a_curve_of_medians_up_to_256_entries():
  clock = Clock()
  profile = clock.measure(batches=(1, 4), contexts=(64, 256), seconds=1e4)
  sizes = [(c.batch, c.context) for c in profile.curves]
  assert sizes == [(1, 64), (4, 64), (1, 256), (4, 256)]
  for curve in profile.curves:
    scale = curve.batch + curve.context / 1000
    assert curve.verify.amount == latency.SIZES and curve.draft.amount == latency.STEPS
    assert curve.verify.measured[:3] == pytest.approx([scale * x for x in (0.011, 0.012, 0.014)])
    # Two sizes of which the larger one was faster: both get one time between the two.
    low, high = curve.verify.fitted[-3:-1]
    assert low == pytest.approx(high) and 0.076 * scale < low < 0.080 * scale
    assert curve.verify.worst == -curve.verify.errors[-3] > curve.verify.errors[-2] > 0.02
    assert curve.verify.errors[:-3] == pytest.approx((0.0,) * 6)
    # The fixed cost is what plain decoding takes beyond its pass, and draft(d) = 2 ms d.
    assert curve.fixed == pytest.approx(0.003 * scale)
    assert curve.plain == pytest.approx(0.014 * scale)
    assert curve.draft.measured == pytest.approx([scale * x for x in (0.002, 0.006, 0.022)])
  assert clock.ran[:3] == [(1, 64, "verify", 1), (1, 64, "verify", 1), (1, 64, "verify", 2)]
  assert clock.ran.count((4, 256, "rounds", 7)) == 1 + latency._REPEATS


def test_rounds_kept_out_of_the_fit_say_how_far_it_is_off():
  (curve,) = Clock().measure(contexts=(100,), sizes=(16,)).curves
  # Rounds with 2 and 5 steps: the first ones lie on a line with their neighbours, the others do
  # not, since drafting jumps at step 5. A line from 6 ms at step 3 to 22 ms at step 7 has 14 ms
  # there and not 18 ms; that of the passes from 4 to 8 entries is right.
  assert curve.round_errors == pytest.approx((0.0, -0.004 / 0.037), abs=1e-9)
  (curve,) = Clock().measure(contexts=(100,), sizes=(16,), kept_out=(4, 6)).curves
  assert curve.round_errors == pytest.approx((0.002 / 0.026, -0.002 / 0.040))
  # Rounds that the fit is made of say nothing: their times are explained by construction.
  assert not Clock().measure(contexts=(100,), sizes=(1,), steps=(1, 2)).curves[0].round_errors
  for wrong in ((3,), (8,), (5, 9)):
    with pytest.raises(ValueError, match=r"must lie between the steps \[1, 3, 7\], got"):
      Clock().measure(kept_out=wrong)


def test_the_largest_are_left_out_first_when_time_is_short():
  said = []
  clock = Clock(compiling=1.0)
  (curve,) = clock.measure(contexts=(64,), seconds=13.0, progress=said.append).curves
  # Four programs that a curve needs; then 4 entries with chains of 3 and rounds of 2, and so on.
  order = [(kind, amount) for _, _, kind, amount in dict.fromkeys(clock.ran)]
  assert order == [
    ("verify", 1), ("verify", 2), ("plain", 0), ("rounds", 1), ("verify", 4), ("rounds", 3),
    ("rounds (out of the fit)", 2), ("verify", 8), ("rounds", 7),
  ]  # fmt: skip
  left = [line.partition("no time for ")[2] for line in said if "no time for" in line]
  assert left == [
    "rounds (out of the fit) 5", *(f"verify {size}" for size in (16, 32, 64, 128, 256))
  ]  # fmt: skip
  assert curve.verify.amount == (1, 2, 4, 8) and len(curve.round_errors) == 1


def test_sizes_are_left_out_when_measuring_the_others_takes_the_rest_of_the_time():
  said = []
  clock = Clock()
  (curve,) = clock.measure(contexts=(64,), seconds=4.2, progress=said.append).curves
  assert curve.verify.amount[-1] == 64 and curve.draft.amount == (1, 3, 7)
  assert [line for line in said if "no time" in line] == [
    f"batch 1, context 64: no time for verify {size}" for size in (128, 256)
  ]
  assert clock.now < 5.0


def test_a_size_that_the_device_has_no_memory_for_is_left_out_and_the_rest_is_measured():
  said = []
  (curve,) = Clock(full=32).measure(contexts=(64,), progress=said.append).curves
  assert curve.verify.amount == (1, 2, 4, 8, 16) and curve.draft.amount == (1, 3, 7)
  assert "batch 1, context 64: no memory for verify 32" in said
  # What a curve needs must fit.
  with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
    Clock(full=2).measure(contexts=(64,))


@pytest.mark.parametrize(
  ("context", "seconds", "every", "pieces"),
  [(256, 0.0015, 10, 1), (1024, 0.0015, 10, 3), (256, 0.0001, 16, 1), (256, 0.05, 4, 3)],
)
def test_short_rounds_are_timed_in_longer_pieces(monkeypatch, context, seconds, every, pieces):
  """To start a piece takes 2 ms, which all kinds of rounds have a part of that is alike."""
  texts, clock = [], Clock()

  def stream(model, params, prompts, *, every, max_tokens, method, **_):
    texts.append((len(prompts[0]), max_tokens))
    left = max_tokens - 1
    while left >= 0:
      yield [[1]]
      clock.now += 0.002 + every * seconds * (1 + method)
      left -= every * (method + 1)

  monkeypatch.setattr(latency, "stream", stream)
  monkeypatch.setattr(latency, "time", clock)
  monkeypatch.setattr(latency, "Autoregressive", lambda: 0)
  bench = latency._Bench(LONG, lookup, None, "sample_match", 1, context).paced(7)
  assert bench.every == every
  for drafts in (0, 7):
    found = bench.rounds("a", drafts, drafts, None).run()
    assert found == pytest.approx([seconds * (1 + drafts) + 0.002 / every] * len(found))
    prompt, new = texts[-1]
    assert prompt + new in (context, context + 1) and new - 1 == len(found) * every * (1 + drafts)
  assert len(found) == pieces
  # In a context that holds no longer piece nothing is tried.
  tried = len(texts)
  short = latency._Bench(LONG, lookup, None, "sample_match", 1, 64)
  assert short.paced(7) is short and len(texts) == tried


def test_a_pass_of_a_large_model_is_timed_with_warm_caches(monkeypatch):
  """Whatever runs first reads the weights from memory, which takes 30 ms more."""
  ran, clock = [], Clock()

  def forwards(model, params, cache, token, count):
    clock.now += count * 0.05 + 0.03 * (not ran)
    ran.append(count)
    return token

  monkeypatch.setattr(latency, "_forwards", forwards)
  monkeypatch.setattr(latency, "time", clock)
  (timed,) = latency._Bench(LONG, lookup, None, "sample_match", 1, 64).verify((1,))
  assert timed.run() == pytest.approx([0.05]) and ran == [1, 1]
