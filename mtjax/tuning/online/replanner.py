"""Plans anew while a program runs: when acceptance, times or the batch have changed."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from mtjax.tuning.competitors import Competitor, RoundKind, Siblings
from mtjax.tuning.online.drift import TimeDrift
from mtjax.tuning.online.estimate import AcceptanceEstimate, Prior
from mtjax.tuning.online.menu import Menu
from mtjax.tuning.plan import PlannedRound, SpeculationPlan, expected_of, plain_round, plan
from mtjax.tuning.profiles.acceptance import AcceptanceProfile
from mtjax.tuning.profiles.counts import AcceptanceCounts
from mtjax.tuning.profiles.latency import LatencyProfile


@dataclasses.dataclass(frozen=True)
class ProfiledDrafter:
  """A drafter with its profiles, for all batch sizes and domains."""

  drafter: str
  acceptance: AcceptanceProfile
  latency: LatencyProfile
  siblings: Siblings = Siblings.ANY_RANKS


@dataclasses.dataclass(frozen=True)
class ReplanState:
  """What is done now, and what is known after the rounds so far."""

  choice: PlannedRound
  estimate: AcceptanceEstimate
  drift: TimeDrift
  since: int  # rounds since the choice was made
  probing: int  # rounds of a probe that are left; 0: this is no probe
  wait: int  # rounds of plain decoding until the next probe
  pause: int  # the value of `wait` after it
  started: frozenset[str] = frozenset()  # drafters that have read the text of this run


@dataclasses.dataclass(frozen=True)
class Replanner:
  """Chooses by measured time and recent acceptance, from past rounds only.

  So a round's choice does not depend on its drafts, and keeps the distribution. A new choice must
  be predicted to be more than 1 + `margin` times as fast as the present one, which must have lasted
  for `dwell` rounds. When the batch changes size, the choice is made at once: the curve of the new
  size is known. While plain decoding is best, nothing is learned about acceptance. So it is
  interrupted after `patience` rounds by a probe: `probe` rounds of what loses least, if speculation
  would pay in at least one of the profiles' domains. After a probe in vain the next one comes after
  twice as many rounds, up to 4 times `patience`. A drafter that was not used yet must read the text
  first: its rounds count with their share of that time, over `new_tokens`.

  Acceptance that is nearly flat over load says nothing about what to do (vllm#26504): the choice
  flips because times do.

  Planning takes time of the host: give a `menu` of rounds, few `sizes`, or latency curves of at
  most some 64 entries, and more so where siblings are in order. When a text outgrows `context`,
  continue with a replanner for a longer one; the state stays as it is.
  """

  drafters: Sequence[ProfiledDrafter]
  context: int = 0
  sizes: tuple[int, ...] | None = None  # of compiled programs, as `mtjax.tuning.plan` takes them
  menu: Menu | None = None  # what to choose from; None: all trees of those sizes
  every: int = 4  # rounds between two comparisons
  margin: float = 0.02
  dwell: int = 8
  patience: int = 16
  probe: int = 3
  hazard: float = 0.003  # probability that a round begins text of another domain
  forget: float = 0.05  # share of the counts that a round replaces
  weight: float = 10.0  # trials that a profile is worth, per depth and rank
  time_memory: float = 0.15
  time_forget: float = 0.002
  min_gain: float = 0.05  # by which the first choice must be faster than plain decoding alone
  new_tokens: int = 0  # per row of a run, which the start of a drafter is spread over; 0: no start

  def __post_init__(self):
    names = [one.drafter for one in self.drafters]
    if not names or len(set(names)) < len(names):
      raise ValueError(f"give at least one drafter, each with a name of its own: got {names}")
    if min(self.every, self.dwell, self.patience, self.probe) < 1:
      raise ValueError("every, dwell, patience and probe must be at least 1 round")
    for name in ("hazard", "forget", "time_memory", "time_forget"):
      if not 0 < getattr(self, name) <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
    if not (self.margin >= 0 and self.weight > 0):
      raise ValueError(f"margin must be at least 0, weight above 0: {self.margin}, {self.weight}")

  def start(self, batch: int) -> ReplanState:
    """Returns the state before the first round of `batch` rows, by the profiles alone."""
    competitors = self.start_competitors(batch)
    choice = self._now(self.start_plan(batch).choice, competitors)
    estimate = AcceptanceEstimate.start(self._prior())
    state = ReplanState(choice, estimate, TimeDrift(), 0, 0, self.patience, self.patience)
    return _begun(state)

  def start_competitors(self, batch: int) -> list[Competitor]:
    """Returns what competes before the first round: all domains are as likely."""
    return list(self._competitors(batch, AcceptanceEstimate.start(self._prior()), TimeDrift()))

  def start_plan(self, batch: int) -> SpeculationPlan:
    """Returns the plan that a run begins with.

    Plain decoding has the time that it takes in a program of its own, where that is known: that is
    what a user has without a plan. To the time of a round is added its share of the time in which
    its drafter reads the prompt. What is chosen must be faster than plain decoding by more than
    `min_gain`.
    """
    competitors = self.start_competitors(batch)
    alone = [one.latency.alone for one in competitors if one.latency.alone is not None]
    reading = self._reading(competitors)

    def whole(one: PlannedRound) -> PlannedRound:
      if one.drafter is None:
        return dataclasses.replace(one, seconds=min(alone)) if alone else one
      return dataclasses.replace(one, seconds=one.seconds + reading(one))

    ranking = sorted(
      map(whole, self.plan(competitors).ranking), key=lambda one: -one.tokens_per_second
    )
    plain = next(one for one in ranking if one.drafter is None)
    ahead = ranking[0].tokens_per_second > (1 + self.min_gain) * plain.tokens_per_second
    return SpeculationPlan(ranking[0] if ahead else plain, plain, tuple(ranking))

  def _reading(
    self, competitors: Sequence[Competitor], started: frozenset[str] = frozenset()
  ) -> Callable[[PlannedRound], float]:
    """Returns a round's share of the seconds that its drafter reads the text for, if it has not."""
    start = {one.drafter: one.latency.start for one in competitors if one.drafter not in started}

    def seconds(one: PlannedRound) -> float:
      if not self.new_tokens or one.drafter not in start:
        return 0.0
      return min(one.expected_tokens / self.new_tokens, 1.0) * start[one.drafter]

    return seconds

  def plan(self, competitors: Sequence[Competitor], *, min_gain: float = 0.0) -> SpeculationPlan:
    """Returns the plan among the menu's rounds, or all trees of the sizes."""
    if self.menu is not None:
      return self.menu.plan(competitors, min_gain=min_gain)
    return plan(competitors, sizes=self.sizes, min_gain=min_gain)

  def competitors(self, batch: int, domain: str | None = None) -> list[Competitor]:
    """Returns what competes by the profiles alone, in a domain, or by the mean of all."""
    prior = self._prior()
    found = list(self._competitors(batch, AcceptanceEstimate.start(prior), TimeDrift()))
    if domain is None:
      return [dataclasses.replace(one, rates=prior.mean[one.drafter]) for one in found]
    place = prior.domains.index(domain)
    return [dataclasses.replace(one, rates=prior.rates[one.drafter][place]) for one in found]

  def _prior(self) -> Prior:
    return Prior.of({one.drafter: one.acceptance for one in self.drafters})

  def observe(
    self,
    state: ReplanState,
    *,
    seconds: float | None,
    counts: AcceptanceCounts | None,
    batch: int | None = None,
    rounds: int = 1,
  ) -> ReplanState:
    """Returns the state after a round that `state.choice` decided, and the next choice.

    seconds: of the round; None: not known, so that nothing is learned about times. counts: of its
    trees (`count_paths`); None for plain decoding. batch: the rows of the next round; None: as
    before. rounds: several of one choice, with the mean of their seconds and the sum of their
    counts. Raises ValueError for seconds that are not above 0, for rounds below 1, and for a batch
    that no curve holds.
    """
    if rounds < 1:
      raise ValueError(f"rounds must be at least 1, got {rounds}")
    batch = state.choice.batch if batch is None else batch
    learned = self._learn(state, seconds, counts, rounds)
    moved = self._curve_batch(batch) != self._curve_batch(state.choice.batch)
    if learned.probing > rounds and not moved:
      return dataclasses.replace(learned, probing=learned.probing - rounds)
    due = learned.probing > 0 or moved or learned.since % self.every < rounds
    if due or learned.choice.batch != batch:
      competitors = list(self._competitors(batch, learned.estimate, learned.drift))
      if due:
        learned = self._compare(learned, competitors, at_once=moved or learned.probing > 0)
      else:
        learned = dataclasses.replace(learned, choice=self._now(learned.choice, competitors))
    if learned.choice.kind is RoundKind.PLAIN:
      learned = self._maybe_probe(learned, batch, rounds)
    return _begun(learned)

  def _learn(
    self, state: ReplanState, seconds: float | None, counts: AcceptanceCounts | None, rounds: int
  ) -> ReplanState:
    choice, drift = state.choice, state.drift
    if seconds is not None:
      drift = self._timed(state, seconds, rounds)
    estimate = state.estimate
    if choice.drafter is not None and counts is not None:
      estimate = estimate.observe(
        choice.drafter,
        counts,
        hazard=_over(rounds, self.hazard),
        forget=_over(rounds, self.forget),
        weight=self.weight,
      )
    return dataclasses.replace(state, drift=drift, estimate=estimate, since=state.since + rounds)

  def _timed(self, state: ReplanState, seconds: float, rounds: int) -> TimeDrift:
    choice = state.choice
    curves = {one.drafter: one.latency.at(choice.batch, self.context) for one in self.drafters}
    if choice.drafter is None:
      predicted = min(curve.plain for curve in curves.values())
    else:
      predicted = float(curves[choice.drafter].round_seconds(choice.entries, choice.steps))
    return state.drift.observe(
      choice.drafter,
      self._curve_batch(choice.batch),
      choice.entries,
      seconds / predicted,
      memory=_over(rounds, self.time_memory),
      forget=_over(rounds, self.time_forget),
    )

  def _compare(
    self, state: ReplanState, competitors: Sequence[Competitor], at_once: bool
  ) -> ReplanState:
    """Returns the state with the best choice, if it is better by enough and it is time."""
    reading = self._reading(competitors, state.started)

    def speed(one: PlannedRound) -> float:
      return one.expected_tokens / (one.seconds + reading(one))

    best = max(self.plan(competitors).ranking, key=speed)
    ended = dataclasses.replace(state, probing=0)
    if state.probing:
      paid = best.kind is not RoundKind.PLAIN
      pause = self.patience if paid else min(2 * state.pause, 4 * self.patience)
      ended = dataclasses.replace(ended, choice=best, since=0, wait=pause, pause=pause)
      return ended
    try:
      present = self._now(state.choice, competitors)
    except ValueError:  # a size whose times are not known for this batch
      return dataclasses.replace(ended, choice=best, since=0)
    better = speed(best) > (1 + self.margin) * speed(present)
    if better and (at_once or state.since >= self.dwell):
      return dataclasses.replace(ended, choice=best, since=0)
    return dataclasses.replace(ended, choice=present)

  def _maybe_probe(self, state: ReplanState, batch: int, rounds: int) -> ReplanState:
    if state.wait > rounds:
      return dataclasses.replace(state, wait=state.wait - rounds)
    competitors = list(self._competitors(batch, state.estimate, state.drift))
    drafter = self._hopeful(state, competitors)
    if drafter is None:
      return dataclasses.replace(state, wait=state.pause)
    ranking = self.plan(competitors).ranking
    return dataclasses.replace(
      state,
      choice=next(one for one in ranking if one.drafter == drafter),
      estimate=state.estimate.aged(state.pause, self.hazard),
      probing=self.probe,
      since=0,
    )

  def _hopeful(self, state: ReplanState, competitors: Sequence[Competitor]) -> str | None:
    """Returns the drafter that would gain most in some domain; None if speculation never pays."""
    prior = state.estimate.prior
    plans = []
    for domain in range(len(prior.domains)):
      changed = [
        dataclasses.replace(one, rates=prior.rates[one.drafter][domain]) for one in competitors
      ]
      plans.append(self.plan(changed, min_gain=self.margin))
    return max(plans, key=lambda one: one.speedup).choice.drafter

  def _competitors(
    self, batch: int, estimate: AcceptanceEstimate, drift: TimeDrift
  ) -> Iterator[Competitor]:
    for one in self.drafters:
      curve = one.latency.at(batch, self.context)
      curve = dataclasses.replace(drift.correct(curve, one.drafter), batch=batch)
      rates = estimate.rates(one.drafter, weight=self.weight)
      yield Competitor(one.drafter, rates, curve, one.siblings)

  def _curve_batch(self, batch: int) -> int:
    return self.drafters[0].latency.at(batch, self.context).batch

  def _now(self, choice: PlannedRound, competitors: Sequence[Competitor]) -> PlannedRound:
    """Returns a choice with what is now expected of it."""
    if choice.kind is RoundKind.PLAIN:
      return plain_round(competitors)
    (competitor,) = (one for one in competitors if one.drafter == choice.drafter)
    return expected_of(competitor, choice)


def _begun(state: ReplanState) -> ReplanState:
  """Returns the state in which the drafter that is chosen reads the text, if it has not."""
  drafter = state.choice.drafter
  if drafter is None or drafter in state.started:
    return state
  return dataclasses.replace(state, started=state.started | {drafter})


def _over(rounds: int, share: float) -> float:
  """Returns the share that several rounds replace together, where each replaces `share`."""
  return 1 - (1 - share) ** rounds
