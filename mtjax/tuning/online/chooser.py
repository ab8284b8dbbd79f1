"""What is asked every few rounds of a running program: how to go on."""

import dataclasses
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Int

from mtjax.draft import host
from mtjax.trees import Topology, chain
from mtjax.tuning.competitors import RoundKind
from mtjax.tuning.online.beginning import THINKING
from mtjax.tuning.online.replanner import Replanner, ReplanState
from mtjax.tuning.online.watching import Watched, watched_rounds
from mtjax.tuning.plan import PlannedRound
from mtjax.tuning.profiles.counts import AcceptanceCounts

PLAIN = 0  # the branch of plain decoding
_RUNS = 64  # runs that are remembered; of older ones, which were left, nothing is known
_ROWS = 4096  # runs whose number of rows is remembered
_LONGEST = 16  # rounds without a question
_ODD = 3.0  # a time that is so many times as long as expected is a pause of the caller's


class Report(NamedTuple):
  """The rounds since the last question, which were all of one choice."""

  branch: int
  rounds: int  # 0: the run begins
  counts: AcceptanceCounts  # of no round for plain decoding
  watched: Watched | None = None  # in plain rounds, where they were to be watched


class NextRounds(NamedTuple):
  """The next rounds: a branch of the program, a tree where shapes are data, and how many.

  watch: of plain rounds, that drafts shall be compared with their text (`Report.watched`).
  """

  branch: int
  topology: Topology
  rounds: int
  watch: bool = False


@runtime_checkable
class Chooser(Protocol):
  """Decides from past rounds alone; called on the host by `mtjax.decode.planned`."""

  def begin(self, rows: int) -> int:
    """Returns the number of a new run, of a batch of so many rows."""
    ...

  def choose(self, run: int, report: Report) -> NextRounds:
    """Returns how the run goes on."""
    ...


@dataclasses.dataclass
class _Run:
  state: ReplanState
  clock: float
  odd: int = 0  # strange times one after the other
  timed: bool = False  # the next report's time is that of its rounds alone
  watched: list[int] | None = None  # where the next watched round of each row begins


class OnlineChooser:
  """Asks a `Replanner`, with the time that the rounds took here.

  branches: by drafter and entries per row. rows: of the first run, if they are known; what does not
  depend on the text is then computed here, and not while the run waits.

  The time between two questions is that of the rounds between them. A stream's caller may pause
  there, so a time that is three times as long as expected counts only when the next one is too. The
  first round of a run, and the first one of another branch, is reported alone, and its time is not
  used: the first question is asked before the target has read the prompt, and a drafter that was
  not used reads all that it missed. Thinking should take 2 % of the time: where rounds are short,
  there are more of them between two questions, 4 to 16. Rounds of a millisecond are so short that
  16 are not enough.
  """

  def __init__(
    self,
    replanner: Replanner,
    branches: Mapping[tuple[str, int], int],
    *,
    rows: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
  ):
    self.replanner, self.branches = replanner, dict(branches)
    self.handle: Int[Array, ""] = host.register(self)
    self._clock, self._numbers = clock, itertools.count(1)
    self._runs: OrderedDict[int, _Run] = OrderedDict()
    self._rows: OrderedDict[int, int] = OrderedDict()  # of runs, forgotten ones among them
    self._thinking = 5e-4  # seconds per question, a running mean
    self._fresh: dict[int, ReplanState] = {}  # by rows: before the first round of any run
    self._watches: dict[int, bool] = {}  # by rows: whether plain rounds are watched
    if rows is not None:
      self._start(rows)
    self._drift = None
    self.switches: list[tuple[int, str]] = []  # (rounds of the run before, what was chosen)

  def _start(self, rows: int) -> ReplanState:
    if rows not in self._fresh:
      self._fresh[rows] = self.replanner.start(rows)
      self._watches[rows] = self.replanner.watches(rows)
    return self._fresh[rows]

  def begin(self, rows: int) -> int:
    state = self._start(rows)
    if self._drift is not None:  # how long rounds take is known from the runs before
      state = dataclasses.replace(state, drift=self._drift)
    number = next(self._numbers)
    self._runs[number], self._rows[number] = _Run(state, self._clock()), rows
    while len(self._runs) > _RUNS:
      self._runs.popitem(last=False)
    while len(self._rows) > _ROWS:
      self._rows.popitem(last=False)
    self.switches = []
    self._seen = 0
    return number

  def choose(self, run: int, report: Report) -> NextRounds:
    now = self._clock()
    known = self._runs.get(run)
    if known is None:  # it was left for long
      known = self._runs[run] = _Run(self._start(self._rows.get(run, 1)), now)
      report = report._replace(rounds=0)
    before = known.state.choice
    if report.rounds:
      self._seen += report.rounds
      seconds = self._seconds(known, now, report.rounds)
      counts = self._counts(known, report)
      known.state = self.replanner.observe(
        known.state, seconds=seconds, counts=counts, rounds=report.rounds
      )
      self._drift = known.state.drift
    choice = known.state.choice
    if not report.rounds or self._same(choice) != self._same(before):
      self.switches.append((self._seen, described(choice)))
    branch, hold = self._branch(choice), self._hold(known.state)
    known.timed = report.rounds > 0 and branch == report.branch
    known.clock = self._clock()
    self._thinking += 0.2 * (known.clock - now - self._thinking)
    watch = branch == PLAIN and self._watches.get(self._rows.get(run, 1), False)
    return NextRounds(branch, choice.topology, hold if known.timed else 1, watch)

  def _counts(self, known: _Run, report: Report) -> AcceptanceCounts | None:
    """Returns what was accepted, or of plain rounds would have been; None if that is not known.

    Of watched rounds it may be nothing yet, because a round with many right drafts is not over.
    """
    if report.branch == PLAIN and report.watched is not None:
      counts, known.watched = watched_rounds(report.watched, known.watched)
      return counts
    known.watched = None
    return report.counts if report.counts.rounds else None

  def _seconds(self, known: _Run, now: float, rounds: int) -> float | None:
    """Returns the seconds per round since the last question; None where they say nothing."""
    if not known.timed:
      return None
    seconds = max((now - known.clock) / rounds, 1e-9)
    if seconds > _ODD * known.state.choice.seconds and known.odd < 2:
      known.odd += 1
      return None
    known.odd = 0
    return seconds

  def _same(self, choice: PlannedRound) -> tuple[int, Topology]:
    """Returns what the program does, without what is expected of it."""
    return self._branch(choice), choice.topology

  def _branch(self, choice: PlannedRound) -> int:
    if choice.drafter is None:
      return PLAIN
    return self.branches[choice.drafter, choice.entries]

  def _hold(self, state: ReplanState) -> int:
    if state.probing:
      return state.probing
    enough = self._thinking / (THINKING * max(state.choice.seconds, 1e-9))
    hold = min(max(int(enough) + 1, self.replanner.every), _LONGEST)
    if state.choice.kind is RoundKind.PLAIN:
      return min(max(hold, 8), max(state.wait, 1))
    return hold


def described(choice: PlannedRound) -> str:
  """Returns a choice in a few words."""
  if choice.drafter is None:
    return "plain decoding"
  if ":" in choice.drafter:  # its settings say what it drafts
    return choice.drafter
  return f"{choice.drafter}, {choice.kind.value} of {choice.topology.size - 1}"


class ScriptedChooser:
  """Says what a script says: for measurements and tests. The last order is repeated."""

  def __init__(
    self, script: Callable[[int], NextRounds], *, clock: Callable[[], float] = time.perf_counter
  ):
    self.handle: Int[Array, ""] = host.register(self)
    self.reports: list[tuple[NextRounds, Report, float]] = []  # with the seconds of all its rounds
    self._script, self._clock = script, clock
    self._last: NextRounds = NextRounds(PLAIN, chain(0), 1)
    self._begin, self._number = 0.0, 0

  def begin(self, rows: int) -> int:
    self._number = 0
    return 1

  def choose(self, run: int, report: Report) -> NextRounds:
    if report.rounds:
      self.reports.append((self._last, report, self._clock() - self._begin))
    self._last = self._script(self._number)
    self._number += 1
    self._begin = self._clock()
    return self._last
