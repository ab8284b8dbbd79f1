"""The store of process 0, which all processes of a job use as one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mtjax import hosts
from mtjax.planning.store import PlanStore
from mtjax.tuning.plan import SpeculationPlan
from mtjax.tuning.plan_file import plan_of_record, plan_record
from mtjax.tuning.profiles import AcceptanceProfile, LatencyProfile

T = TypeVar("T")


class _Form(NamedTuple):
  """How something is told to other processes, as JSON values."""

  record: Callable[[Any], dict[str, Any]]
  of_record: Callable[[Mapping[str, Any]], Any]


_FORMS = dict(
  acceptance=_Form(AcceptanceProfile.record, AcceptanceProfile.of_record),
  latency=_Form(LatencyProfile.record, LatencyProfile.of_record),
  plan=_Form(plan_record, plan_of_record),
)


class SharedStore(PlanStore):
  """A store whose files process 0 alone reads and writes: it tells the others what it has read.

  So the processes need no file system that they share, and never plan by different profiles. Every
  process must call the same methods in the same order.
  """

  def keep(
    self, of: Mapping[str, str], what: AcceptanceProfile | LatencyProfile | SpeculationPlan
  ) -> Path | None:
    return super().keep(of, what) if hosts.is_first() else None

  def _load(self, kind: str, of: Mapping[str, str], load: Callable[..., T]) -> T | None:
    found = super()._load(kind, of, load) if hosts.is_first() else None
    form = _FORMS[kind]
    told = hosts.of_first(None if found is None else form.record(found))
    return None if told is None else form.of_record(told)
