"""Plans anew while a program runs: when acceptance, times or the batch have changed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mtjax.tuning.competitors import Competitor, RoundKind
from mtjax.tuning.online.beginning import FirstPlanner
from mtjax.tuning.online.drift import TimeDrift
from mtjax.tuning.online.estimate import AcceptanceEstimate
from mtjax.tuning.plan import PlannedRound, expected_of, plain_round
from mtjax.tuning.profiles.counts import AcceptanceCounts
from mtjax.tuning.shapes.rated import rate


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
  emitted: float = 0.0  # tokens per row of this run
  basis: Float[np.ndarray, " M+2"] | None = None  # `Replanner._basis` when the choice was confirmed


@dataclasses.dataclass(frozen=True)
class Replanner(FirstPlanner):
  """Chooses by measured time and recent acceptance, from past rounds only.

  So a round's choice does not depend on its drafts, and keeps the distribution. A new choice must
  be predicted to be more than 1 + `margin` times as fast as the present one, which must have lasted
  for `dwell` rounds. When the batch changes size, the choice is made at once: the curve of the new
  size is known. While plain decoding is best, rounds say nothing about acceptance. So it is
  interrupted after `patience` rounds by a probe: `probe` rounds of what loses least, if speculation
  would pay in at least one of the profiles' domains. After a probe in vain the next one comes after
  twice as many rounds, up to 4 times `patience`. Where a drafter is `watched`, plain rounds say
  which of its drafts are right, so a change of the text is seen without a probe of it. A drafter
  that was not used yet must read the text first: that time is spread over the tokens that are left
  of `new_tokens`, at least a quarter.

  Acceptance that is nearly flat over load says nothing about what to do (vllm#26504): the choice
  flips because times do.

  Planning takes time of the host: give a `menu` of rounds, few `sizes`, or latency curves of at
  most some 64 entries, and more so where siblings are in order. When a text outgrows `context`,
  continue with a replanner for a longer one; the state stays as it is.
  """

  every: int = 4  # rounds between two comparisons
  margin: float = 0.02
  dwell: int = 8
  patience: int = 16
  probe: int = 3
  hazard: float = 0.005  # probability that a round begins text of another domain
  forget: float = 0.05  # share of the counts that a round replaces
  time_memory: float = 0.15
  time_forget: float = 0.002

  def __post_init__(self):
    names = [one.drafter for one in self.drafters]
    if not names or len(set(names)) < len(names):
      raise ValueError(f"give at least one drafter, each with a name of its own: got {names}")
    if self.watched is not None and self.watched not in names:
      raise ValueError(f"{self.watched!r} cannot be watched: the drafters are {', '.join(names)}")
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

  def _reading(self, state: ReplanState, competitors: Sequence[Competitor]) -> Mapping[str, float]:
    """Returns the seconds per token that each drafter reads the text for, if it has not."""
    if not self.new_tokens:
      return {}
    left = max(self.new_tokens - state.emitted, self.new_tokens / 4)
    return {
      one.drafter: one.latency.start / left
      for one in competitors
      if one.drafter not in state.started
    }

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
    trees (`count_paths`); of plain decoding those of the watched drafter (`watched_rounds`); None:
    not known. batch: the rows of the next round; None: as before. rounds: several of one choice,
    with the mean of their seconds and the sum of their counts. Raises ValueError for seconds that
    are not above 0, for rounds below 1, and for a batch that no curve holds.
    """
    if rounds < 1:
      raise ValueError(f"rounds must be at least 1, got {rounds}")
    batch = state.choice.batch if batch is None else batch
    learned = self._learn(state, seconds, counts, rounds)
    moved = self._curve_batch(batch) != self._curve_batch(state.choice.batch)
    if learned.probing > rounds and not moved:
      return dataclasses.replace(learned, probing=learned.probing - rounds)
    due = learned.probing > 0 or moved or learned.since % self.every < rounds
    due = due and (learned.probing > 0 or moved or not self._settled(learned))
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
    estimate, emitted = state.estimate, state.emitted + rounds
    drafter = self.watched if choice.drafter is None else choice.drafter
    if drafter is not None and counts is not None:
      if choice.drafter is not None:
        emitted += float(counts.accepted.sum()) / choice.batch
      estimate = estimate.observe(
        drafter,
        counts,
        hazard=_over(rounds, self.hazard),
        forget=_over(rounds, self.forget),
        weight=self.weight,
      )
    since = state.since + rounds
    return dataclasses.replace(state, drift=drift, estimate=estimate, since=since, emitted=emitted)

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
    reading = self._reading(state, competitors)

    def speed(one: PlannedRound) -> float:
      read = reading.get(one.drafter, 0.0) if one.drafter else 0.0
      return 1 / (one.seconds / one.expected_tokens + read)

    if self.menu is not None:
      best = self.menu.fastest(competitors, reading)
    else:
      best = max(self.plan(competitors).ranking, key=speed)
    ended = dataclasses.replace(state, probing=0)
    if state.probing:
      paid = best.kind is not RoundKind.PLAIN
      pause = self.patience if paid else min(2 * state.pause, 4 * self.patience)
      ended = dataclasses.replace(ended, choice=best, since=0, wait=pause, pause=pause, basis=None)
      return ended
    try:
      present = self._now(state.choice, competitors)
    except ValueError:  # a size whose times are not known for this batch
      return dataclasses.replace(ended, choice=best, since=0, basis=None)
    better = speed(best) > (1 + self.margin) * speed(present)
    if better and (at_once or state.since >= self.dwell):
      return dataclasses.replace(ended, choice=best, since=0, basis=None)
    basis = None if better else self._basis(state)
    return dataclasses.replace(ended, choice=present, basis=basis)

  def _settled(self, state: ReplanState) -> bool:
    """Returns true if all is as when the present choice was confirmed, but for the margin.

    A comparison would nearly always find the same, and takes most of the time of a question.
    """
    if state.basis is None:
      return False
    return bool(np.max(np.abs(self._basis(state) - state.basis)) <= self.margin)

  def _basis(self, state: ReplanState) -> Float[np.ndarray, " M+2"]:
    """Returns what a comparison follows from, as far as rounds of the present choice change it.

    They are the probabilities of the opinions, the logarithm of the choice's expected tokens, which
    its own recent rounds change, and that of its measured over predicted time.
    """
    choice, tokens = state.choice, 1.0
    if choice.drafter is not None:
      rates = state.estimate.rates(choice.drafter, weight=self.weight)
      tokens = rate(choice.topology, rates).expected_tokens
    sizes = state.drift.factors.get((choice.drafter, self._curve_batch(choice.batch)), {})
    factor = sizes.get(choice.entries)
    log = 0.0 if factor is None else factor.log
    return np.append(state.estimate.probabilities, [math.log(tokens), log])

  def _maybe_probe(self, state: ReplanState, batch: int, rounds: int) -> ReplanState:
    if state.wait > rounds:
      return dataclasses.replace(state, wait=state.wait - rounds)
    competitors = list(self._competitors(batch, state.estimate, state.drift))
    drafter = self._hopeful(state.estimate, competitors)
    # How often drafts of a watched drafter would be accepted is known without a probe.
    if drafter is None or drafter == self.watched:
      return dataclasses.replace(state, wait=state.pause)
    estimate = state.estimate
    if not self.watches(batch):  # nothing was seen since the last probe
      estimate = estimate.aged(state.pause, self.hazard)
    ranking = self.plan(competitors).ranking
    return dataclasses.replace(
      state,
      choice=next(one for one in ranking if one.drafter == drafter),
      estimate=estimate,
      probing=self.probe,
      since=0,
      basis=None,
    )

  def watches(self, batch: int) -> bool:
    """Returns true if plain rounds shall be watched: drafts would pay in some domain."""
    if self.watched is None:
      return False
    estimate = AcceptanceEstimate.start(self._prior())
    competitors = list(self._competitors(batch, estimate, TimeDrift()))
    return self._hopeful(estimate, competitors) is not None

  def _hopeful(self, estimate: AcceptanceEstimate, competitors: Sequence[Competitor]) -> str | None:
    """Returns the drafter that would gain most in some domain; None if speculation never pays."""
    prior = estimate.prior
    plans = []
    for domain in range(len(prior.domains)):
      changed = [
        dataclasses.replace(one, rates=prior.rates[one.drafter][domain]) for one in competitors
      ]
      plans.append(self.plan(changed, min_gain=self.margin))
    return max(plans, key=lambda one: one.speedup).choice.drafter

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
