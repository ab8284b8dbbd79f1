"""What is measured from rounds whose true times are known: a clock, and a prompt's pass in it."""

import numpy as np
import pytest

from mtjax.planning.calibration.windows import NARROW, WINDOW, Script, Windows, half_interval
from mtjax.trees import chain
from mtjax.tuning.online.chooser import PLAIN, Report, ScriptedChooser
from mtjax.tuning.profiles import AcceptanceCounts

PLAIN_SECONDS, ALONE, PREFILL, READING = 3e-3, 2.7e-3, 30e-3, 12e-3
DEEP, SHORT, LOOKUP = (1, chain(3)), (1, chain(1)), (2, chain(5))
TRUE = {DEEP: 8e-3, SHORT: 5e-3, LOOKUP: 3.5e-3}
NAMES = {1: "draft", 2: "lookup"}


class Machine:
  """Decodes a text of some tokens by a script, on a clock of its own that may run slower."""

  def __init__(self, trials):
    self.now = 0.0
    self.chooser = ScriptedChooser(Script(trials), clock=lambda: self.now)

  def decode(self, tokens, slow=1.0):
    report, told, first, begun = (
      Report(PLAIN, 0, AcceptanceCounts.none(1, 1)),
      set(),
      PREFILL,
      False,
    )
    self.chooser.begin(1)
    while True:
      order = self.chooser.choose(1, report)
      trial = order.branch, order.topology
      self.now += slow * (first if not begun else 0.0)
      begun = True
      if order.branch == 1 and 1 not in told:
        self.now += slow * READING
      told.add(order.branch)
      emitted = 1 if order.branch == PLAIN else 2
      for _ in range(order.rounds):
        self.now += slow * TRUE.get(trial, PLAIN_SECONDS)
        tokens -= emitted
        if tokens <= 0:
          found = self.chooser.reports[:]
          self.chooser.reports.clear()
          return found
      drafts = 0 if order.branch == PLAIN else order.rounds
      counts = AcceptanceCounts(np.full((1, 1), drafts), np.full((1, 1), drafts), drafts)
      report = Report(order.branch, order.rounds, counts)


def measured(sizes, passes, slow=lambda number: 1.0):
  trials = list(TRUE)
  machine, windows = Machine(trials), Windows(trials, NAMES)
  for number in range(passes):
    for size in sizes:
      now = slow(number)
      windows.add(machine.decode(size, now), now * ALONE)
  return windows


@pytest.mark.parametrize("sizes", [(96,), (40, 33), (23,), (15,)])
def test_times_are_those_of_rounds_without_the_prompts_pass(sizes):
  windows = measured(sizes, 12)
  assert not windows.missing
  assert windows.plain == pytest.approx(PLAIN_SECONDS)
  assert windows.alone == pytest.approx(ALONE)
  for trial, seconds in TRUE.items():
    assert windows.seconds(trial) == pytest.approx(seconds)
  assert windows.start("lookup") == pytest.approx(0.0, abs=1e-9)
  if sizes != (15,):
    assert windows.start("draft") == pytest.approx(READING)


def test_a_machine_that_becomes_slower_changes_no_ratio():
  windows = measured((96,), 12, lambda number: 1.0 + 0.2 * number)
  for trial, seconds in TRUE.items():
    assert windows.seconds(trial) / windows.plain == pytest.approx(seconds / PLAIN_SECONDS)
  assert windows.alone / windows.plain == pytest.approx(ALONE / PLAIN_SECONDS)


def test_it_goes_on_until_the_ratio_of_the_best_is_known():
  steady, rng = measured((96,), 12), np.random.default_rng(0)
  assert steady.enough and not measured((96,), 2).enough
  noisy = measured((96,), 12)
  noisy.add([], ALONE)  # a text that ended at once says nothing
  assert noisy.enough
  for values in noisy._ratios.values():
    values[:] = [value * float(np.exp(rng.normal() * 0.3)) for value in values]
  assert not noisy.enough
  assert half_interval([1.0] * 5) == 0.0 and half_interval([1.0, 1.1, 1.2, 0.9]) > NARROW


def test_texts_that_end_before_any_window_leave_trials_missing():
  assert measured((WINDOW - 1,), 20).missing
