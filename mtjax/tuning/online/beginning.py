"""What a run begins with: by the profiles alone, before its first round."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from mtjax.tuning.competitors import Competitor, Siblings
from mtjax.tuning.online.drift import TimeDrift
from mtjax.tuning.online.estimate import AcceptanceEstimate, Prior
from mtjax.tuning.online.menu import Menu
from mtjax.tuning.plan import PlannedRound, SpeculationPlan, expected_of, plain_round, plan
from mtjax.tuning.profiles.acceptance import AcceptanceProfile
from mtjax.tuning.profiles.latency import LatencyProfile
from mtjax.tuning.whole_runs import WholeRuns

# Share of the time that questions may take while a program follows the text.
THINKING = 0.02


@dataclasses.dataclass(frozen=True)
class ProfiledDrafter:
  """A drafter with its profiles, for all batch sizes and domains.

  on_host: its rounds ask the host in any program, so that they are no faster in one of their own.
  """

  drafter: str
  acceptance: AcceptanceProfile
  latency: LatencyProfile
  siblings: Siblings = Siblings.ANY_RANKS
  on_host: bool = False


@dataclasses.dataclass(frozen=True)
class FirstPlanner:
  """Plans whole runs of `new_tokens` tokens per row, by the profiles of all drafters.

  What is chosen for a run may have a program of its own, whose rounds are faster than those of a
  program of all drafters, which asks the host: by as many seconds as plain decoding is
  (`LatencyCurve.alone`), but for drafters on the host.

  watched: the drafter whose drafts are compared with the text of plain rounds, so that they say
  what the text is; None: they say nothing.
  """

  drafters: Sequence[ProfiledDrafter]
  context: int = 0
  sizes: tuple[int, ...] | None = None  # of compiled programs, as `mtjax.tuning.plan` takes them
  menu: Menu | None = None  # what to choose from; None: all trees of those sizes
  weight: float = 10.0  # trials that a profile is worth, per depth and rank
  min_gain: float = 0.05  # by which speculation must be faster than plain decoding alone
  new_tokens: int = 0  # per row of a run; 0: not known, and rounds are compared, not runs
  watched: str | None = None
  _starts: dict[int, SpeculationPlan] = dataclasses.field(
    default_factory=dict, init=False, repr=False, compare=False
  )

  def plan(self, competitors: Sequence[Competitor], *, min_gain: float = 0.0) -> SpeculationPlan:
    """Returns the plan among the menu's rounds, or all trees of the sizes."""
    if self.menu is not None:
      return self.menu.plan(competitors, min_gain=min_gain)
    return plan(competitors, sizes=self.sizes, min_gain=min_gain)

  def competitors(self, batch: int, domain: str | None = None) -> list[Competitor]:
    """Returns what competes by the profiles alone, in a domain, or by the mean of all."""
    prior, found = self._prior(), self.start_competitors(batch)
    if domain is None:
      return [dataclasses.replace(one, rates=prior.mean[one.drafter]) for one in found]
    place = prior.domains.index(domain)
    return [dataclasses.replace(one, rates=prior.rates[one.drafter][place]) for one in found]

  def start_competitors(self, batch: int) -> list[Competitor]:
    """Returns what competes before the first round: all domains are as likely."""
    return list(self._competitors(batch, AcceptanceEstimate.start(self._prior()), TimeDrift()))

  def start_plan(self, batch: int) -> SpeculationPlan:
    """Returns the plan that a run begins with, with what `whole_run` expects of each round.

    That is in programs of their own, which a user has without a plan. What is chosen must be faster
    than plain decoding by more than `min_gain`.
    """
    if batch not in self._starts:
      self._starts[batch] = self._start_plan(batch)
    return self._starts[batch]

  def _start_plan(self, batch: int) -> SpeculationPlan:
    competitors = self.start_competitors(batch)
    ranking = sorted(
      map(self.whole_run(competitors), self.plan(competitors).ranking),
      key=lambda one: -one.tokens_per_second,
    )
    plain = next(one for one in ranking if one.drafter is None)
    ahead = ranking[0].tokens_per_second > (1 + self.min_gain) * plain.tokens_per_second
    return SpeculationPlan(ranking[0] if ahead else plain, plain, tuple(ranking))

  def whole_run(
    self, competitors: Sequence[Competitor], *, domain: str | None = None, alone: bool = True
  ) -> Callable[[PlannedRound], PlannedRound]:
    """Returns a function from a round to what is expected of runs with this round alone.

    Expected tokens are those of a row over the rounds of its batch, which ends with its slowest row
    (`WholeRuns`). A drafter reads the prompt once: every round takes an equal part of that time
    more. domain: of all rows; None: they are of all domains in turn. alone: True for a
    program of its own, if its times are known; False for the program of all drafters.
    """
    (batch,) = {one.latency.batch for one in competitors}
    # The first token is that of the prompt's pass.
    new = max(self.new_tokens - 1, 1)
    runs = {
      one.drafter: WholeRuns(batch, new, spread=one.acceptance.spread) for one in self.drafters
    }
    plain = min(one.latency.plain for one in competitors)
    known = [one.latency.alone for one in competitors if one.latency.alone is not None]
    own = min(known) if alone and known else plain
    start = {one.drafter: one.latency.start for one in competitors}
    faster = {one.drafter: 0.0 if one.on_host else max(plain - own, 0.0) for one in self.drafters}
    prior = self._prior()
    places = range(len(prior.domains)) if domain is None else [prior.domains.index(domain)]

    def whole(one: PlannedRound) -> PlannedRound:
      if one.drafter is None:
        return dataclasses.replace(one, seconds=own)
      # No round takes less than a plain one, whatever the two programs differ in.
      seconds = max(one.seconds - faster[one.drafter], min(own, one.seconds))
      expected = one.expected_tokens
      if self.new_tokens:
        rounds = runs[one.drafter].rounds(
          one.topology, [prior.rates[one.drafter][place] for place in places]
        )
        expected, seconds = new / rounds, seconds + start[one.drafter] / rounds
      return dataclasses.replace(one, seconds=seconds, expected_tokens=expected)

    return whole

  def gain_of_following(self, batch: int) -> float:
    """Returns by how much runs would be faster, at most, if the choice followed the text.

    It is the time of runs with the first choice, in a program of its own, over the time with what
    is best in each domain, known at once, in the program of all drafters, less 1. Every domain is
    as likely; all rows of a batch are of one. 0 where the first choice is plain decoding and no
    drafter is watched, because nothing says then that the text would be drafted well.
    """
    first, static, following = self.start_plan(batch).choice, 0.0, 0.0
    if first.drafter is None and self.watched is None:
      return 0.0
    for domain in self._prior().domains:
      competitors = self.competitors(batch, domain)
      own = plain_round(competitors)
      if first.drafter is not None:
        (its,) = [one for one in competitors if one.drafter == first.drafter]
        own = expected_of(its, first)
      own = self.whole_run(competitors, domain=domain)(own)
      within = self.whole_run(competitors, domain=domain, alone=False)
      best = max(within(one).tokens_per_second for one in self.plan(competitors).ranking)
      static += 1 / own.tokens_per_second
      following += (1 + THINKING) / best
    return static / following - 1

  def _prior(self) -> Prior:
    return Prior.of({one.drafter: one.acceptance for one in self.drafters})

  def _competitors(
    self, batch: int, estimate: AcceptanceEstimate, drift: TimeDrift
  ) -> Iterator[Competitor]:
    for one in self.drafters:
      curve = one.latency.at(batch, self.context)
      curve = dataclasses.replace(drift.correct(curve, one.drafter), batch=batch)
      rates = estimate.rates(one.drafter, weight=self.weight)
      yield Competitor(one.drafter, rates, curve, one.siblings)
