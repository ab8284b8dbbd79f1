"""Windows of rounds that are timed while texts are decoded, each beside one of plain decoding."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from mtjax.trees import Topology, chain
from mtjax.tuning.online.chooser import PLAIN, NextRounds, Report

WINDOW = 4  # rounds that are timed together
WINDOWS = 5  # of each trial, at least, if there is time
NARROW = 0.02  # half of the 95 % interval of a ratio of times, as a share of it

Trial = tuple[int, Topology]  # a branch of the program, and a tree
_ATTEMPTS = 3  # texts in a row that a trial may begin, before the others have their turns
PLAIN_TRIAL: Trial = (PLAIN, chain(0))


class Script:
  """Every trial in turn, behind a window of plain rounds that it is compared with.

  Before each window comes one round that is not timed: a branch that has rested is told what it
  missed, and the first round of a text holds the prompt's pass. A trial that a text ended before
  its window was reported is tried again in the next text, at last without the plain window.
  """

  def __init__(self, trials: Sequence[Trial]):
    self._trials = itertools.cycle(trials)
    self._trial, self._attempt = next(self._trials), -1
    self._orders: list[NextRounds] = []

  def __call__(self, number: int) -> NextRounds:
    """Returns the next order; number: of the orders since the text began."""
    if number == 0:  # the window of this trial was not reported, or is the first one
      self._begin(self._attempt + 1)
    elif not self._orders:
      self._begin(_ATTEMPTS)
    return self._orders.pop(0)

  def _begin(self, attempt: int) -> None:
    if attempt >= _ATTEMPTS:
      self._trial, attempt = next(self._trials), 0
    self._attempt = attempt
    both = [self._trial] if attempt == _ATTEMPTS - 1 else [PLAIN_TRIAL, self._trial]
    self._orders = [
      NextRounds(branch, topology, rounds) for branch, topology in both for rounds in (1, WINDOW)
    ]


class Windows:
  """What the windows of all texts say: times of trials over those of plain rounds beside them."""

  def __init__(self, trials: Sequence[Trial], names: Mapping[int, str]):
    """names: the drafter of each branch."""
    self._names = dict(names)
    self._ratios: dict[Trial, list[float]] = {trial: [] for trial in trials}
    self._tokens: dict[Trial, list[int]] = {trial: [0, 0] for trial in trials}
    self._plain: list[float] = []
    self._alone: list[float] = []
    self._first: dict[str, list[tuple[float, Trial]]] = {}

  def add(self, reports: Sequence[tuple[NextRounds, Report, float]], alone: float) -> None:
    """Takes the reports of one text.

    alone: seconds per round of the same text under plain decoding in a program of its own.
    """
    used, plain = set(), []
    for place, (order, report, seconds) in enumerate(reports):
      trial, each = (order.branch, order.topology), seconds / report.rounds
      if order.branch == PLAIN:
        if order.rounds == WINDOW:
          plain.append(each)
        continue
      trees, accepted = report.counts.rounds, int(report.counts.accepted.sum())
      self._tokens[trial][0] += trees + accepted
      self._tokens[trial][1] += trees
      name = self._names[order.branch]
      if order.rounds == WINDOW:
        beside = plain[-1] if plain else self._plain[-1] if self._plain else None
        if beside is not None:
          self._ratios[trial].append(each / beside)
      elif name not in used and place:
        self._first.setdefault(name, []).append((seconds, trial))
      used.add(name)
    self._plain += plain
    if plain:
      self._alone.append(alone / statistics.median(plain))

  @property
  def missing(self) -> bool:
    """True if a trial has no window yet."""
    return not self._alone or not all(self._ratios.values())

  @property
  def enough(self) -> bool:
    """True if each trial has windows, and the best one and plain decoding are known well."""
    if self.missing or min(map(len, [*self._ratios.values(), self._alone])) < WINDOWS:
      return False
    best = max(self._ratios, key=lambda trial: self._speed(trial))
    return max(half_interval(self._ratios[best]), half_interval(self._alone)) <= NARROW

  @property
  def plain(self) -> float:
    """Seconds of a plain round within the program."""
    return statistics.median(self._plain)

  @property
  def alone(self) -> float:
    """Seconds of a round of plain decoding in a program of its own."""
    return self.plain * statistics.median(self._alone)

  def seconds(self, trial: Trial) -> float:
    """Returns the seconds of a round of a trial."""
    return self.plain * statistics.median(self._ratios[trial])

  def start(self, name: str) -> float:
    """Returns the seconds that a drafter's first round takes longer than later ones."""
    more = [seconds - self.seconds(trial) for seconds, trial in self._first.get(name, [])]
    return max(statistics.median(more), 0.0) if more else 0.0

  def _speed(self, trial: Trial) -> float:
    emitted, trees = self._tokens[trial]
    return emitted / max(trees, 1) / statistics.median(self._ratios[trial])


def half_interval(values: Sequence[float]) -> float:
  """Returns half of the 95 % interval of a median, as a share of it.

  It is 1.57 times the range between the quartiles over the square root of their number (McGill,
  Tukey and Larsen, Variations of box plots, 1978).
  """
  low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
  return float(1.57 * (high - low) / math.sqrt(len(values)) / middle)
