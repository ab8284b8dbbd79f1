"""A plan with all that it was made from, and what was measured of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mtjax.tuning.competitors import Competitor, RoundKind
from mtjax.tuning.plan import PlannedRound, SpeculationPlan
from mtjax.tuning.profiles import AcceptanceProfile


def identity_of_plan(
  machine: str, target: str, context: int, batch: int, of: Mapping[str, str]
) -> dict[str, str]:
  """Returns what the file of a plan belongs to, as names and values (`TunedPlan.identity`)."""
  return dict(device=machine, target=target, context=str(context), batch=str(batch), **of)


def label(one: PlannedRound) -> str:
  """Returns the drafter and the kind of a round, as tables name it."""
  return RoundKind.PLAIN.value if one.drafter is None else f"{one.drafter}, {one.kind.value}"


@dataclasses.dataclass(frozen=True)
class TunedPlan:
  """The plan of one batch size on one machine.

  profiles: of the drafters whose acceptance was measured, by name. measured: tokens per second by
  `label`; empty where nothing was decoded. of: what the plan depends on beside machine, target,
  context and batch, such as its drafters. notes: sentences for people.
  """

  machine: str
  target: str
  context: int
  plan: SpeculationPlan
  competitors: tuple[Competitor, ...]
  profiles: Mapping[str, AcceptanceProfile] = dataclasses.field(default_factory=dict)
  domain: str = "all"
  measured: Mapping[str, float] = dataclasses.field(default_factory=dict)
  of: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()

  @property
  def batch(self) -> int:
    """The number of rows that the plan is for."""
    return self.plan.choice.batch

  @property
  def identity(self) -> dict[str, str]:
    """What its file belongs to: only a plan of the same replaces it."""
    return identity_of_plan(self.machine, self.target, self.context, self.batch, self.of)

  @property
  def title(self) -> str:
    """The target and where it runs, in words."""
    return f"{self.target} on {self.machine}, batch {self.batch}, {self.context} tokens of context"

  @property
  def best_rounds(self) -> list[PlannedRound]:
    """The best round of each drafter and kind, and plain decoding; the fastest first."""
    found: dict[str, PlannedRound] = {}
    for one in self.plan.ranking:
      found.setdefault(label(one), one)
    return list(found.values())

  @property
  def drawn(self) -> PlannedRound | None:
    """The chosen round, or the best one with drafts where plain decoding is chosen; None: none."""
    if self.plan.choice.drafter is not None:
      return self.plan.choice
    return next((one for one in self.best_rounds if one.drafter is not None), None)

  def competitor(self, one: PlannedRound) -> Competitor:
    """Returns the drafter of a round."""
    return next(other for other in self.competitors if other.drafter == one.drafter)

  def predicted_speedup(self, one: PlannedRound) -> float:
    """Returns the predicted speed over that of plain decoding."""
    return one.tokens_per_second / self.plan.plain.tokens_per_second

  def measured_speedup(self, one: PlannedRound) -> float | None:
    """Returns the measured speed over that of plain decoding; None: not measured."""
    plain, own = self.measured.get(RoundKind.PLAIN.value), self.measured.get(label(one))
    return None if plain is None or own is None else own / plain

  def rows(self) -> list[dict[str, Any]]:
    """Returns one row per round, for files of results."""
    return [
      dict(
        machine=self.machine,
        target=self.target,
        batch=self.batch,
        context=self.context,
        round=label(one),
        chosen=one == self.plan.choice,
        parent=list(one.topology.parent),
        rank=list(one.topology.rank),
        entries=one.entries,
        steps=one.steps,
        expected_tokens=one.expected_tokens,
        seconds=one.seconds,
        tokens_per_second=one.tokens_per_second,
        speedup=self.predicted_speedup(one),
        measured_tokens_per_second=self.measured.get(label(one)),
        measured_speedup=self.measured_speedup(one),
      )
      for one in self.best_rounds
    ]
