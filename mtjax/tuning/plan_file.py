"""Plans as files that people can read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtjax.trees import Topology
from mtjax.tuning import documents
from mtjax.tuning.competitors import RoundKind
from mtjax.tuning.plan import PlannedRound, SpeculationPlan

KIND, VERSION = "mtjax speculation plan", 1


def save_plan(path: str | Path, plan: SpeculationPlan, of: Mapping[str, str]) -> None:
  """Writes a plan as JSON (`mtjax.tuning.documents.write`), with its reason in words.

  of: what it belongs to, such as the device and the models. Raises ValueError for a plan that
  `load_plan` would refuse, and for a file that is there and holds anything but an older plan of the
  same.
  """
  documents.write(path, KIND, VERSION, of, plan_record(plan), plan_of_record)


def load_plan(path: str | Path, **of: str) -> SpeculationPlan:
  """Returns a saved plan.

  of: what it must belong to; names that are left out are not compared. Raises FileNotFoundError,
  DamagedDocument for a file that is none, and ValueError for a plan of something else.
  """
  return documents.read(path, KIND, VERSION, of, plan_of_record)


def plan_record(plan: SpeculationPlan) -> dict[str, Any]:
  """Returns a plan as JSON values, which `plan_of_record` takes."""
  return dict(
    why=plan.why().split("\n"),  # for people; not read
    choice=_record(plan.choice),
    plain=_record(plan.plain),
    ranking=[_record(one) for one in plan.ranking],
  )


def plan_of_record(record: Mapping[str, Any]) -> SpeculationPlan:
  """Returns the plan of what `plan_record` returned. Raises ValueError for what is no plan."""
  ranking = tuple(_round(one) for one in record["ranking"])
  choice, plain = _round(record["choice"]), _round(record["plain"])
  # The choice is one of the ranking: the runner-up is told from it by identity.
  return SpeculationPlan(_same(choice, ranking), _same(plain, ranking), ranking)


def _record(one: PlannedRound) -> dict[str, Any]:
  return dict(
    kind=one.kind.value,
    drafter=one.drafter,
    parent=list(one.topology.parent),
    rank=list(one.topology.rank),
    entries=one.entries,
    steps=one.steps,
    batch=one.batch,
    expected_tokens=one.expected_tokens,
    seconds=one.seconds,
    tokens_per_second=round(one.tokens_per_second, 3),  # for people; not read
  )


def _round(record: Mapping[str, Any]) -> PlannedRound:
  drafter = record["drafter"]
  if not (drafter is None or isinstance(drafter, str)):
    raise ValueError(f"a drafter must be a name, got {drafter!r}")
  out = PlannedRound(
    kind=RoundKind(record["kind"]),
    drafter=drafter,
    topology=Topology(tuple(map(int, record["parent"])), tuple(map(int, record["rank"]))),
    entries=int(record["entries"]),
    steps=int(record["steps"]),
    batch=int(record["batch"]),
    expected_tokens=float(record["expected_tokens"]),
    seconds=float(record["seconds"]),
  )
  if not (out.seconds > 0 and out.expected_tokens >= 1 and out.batch >= 1 and out.entries >= 1):
    raise ValueError(
      f"seconds must be above 0, and expected_tokens, batch and entries at least 1: got {out}"
    )
  return out


def _same(one: PlannedRound, ranking: tuple[PlannedRound, ...]) -> PlannedRound:
  found = [other for other in ranking if other == one]
  if not found:
    raise ValueError("the ranking lacks a round that the plan names")
  return found[0]
