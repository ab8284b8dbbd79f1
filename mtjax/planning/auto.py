"""The drafters and trees that pay here: stored profiles, or measured ones, and a plan of them."""

import dataclasses
import functools
from collections.abc import Sequence

from jaxtyping import PyTree

from mtjax import hosts
from mtjax.decode.method import Autoregressive, Method
from mtjax.decode.planned import Planned
from mtjax.planning.calibration import (
  PlanRequest,
  Progress,
  calibrate,
  calibrate_apart,
  new_tokens,
  sizes_apart,
)
from mtjax.planning.candidate import PlanCandidate, program_of, watched
from mtjax.planning.shared_store import SharedStore
from mtjax.planning.store import PlanStore
from mtjax.planning.texts import BUNDLED_TEXTS, Texts, name_of
from mtjax.text import TextModel
from mtjax.tuning.online import Menu, ProfiledDrafter, Replanner
from mtjax.tuning.online.chooser import OnlineChooser, described
from mtjax.tuning.plan import PlannedRound, SpeculationPlan
from mtjax.tuning.plan_file import plan_of_record, plan_record

# When profiles are measured: where none are stored, or now, in place of those that are stored.
ONCE, AGAIN = "once", "again"


def check_measure(measure: str) -> None:
  """Raises ValueError for anything but "once" and "again"."""
  if measure not in (ONCE, AGAIN):
    raise ValueError(f"measure must be {ONCE!r} or {AGAIN!r}, got {measure!r}")


@dataclasses.dataclass(frozen=True)
class AutoPlan:
  """What `plan_candidates` returns: the program, what is chosen, and why."""

  program: Planned
  plan: SpeculationPlan  # of the first round
  replanner: Replanner
  candidates: tuple[PlanCandidate, ...]
  measured: bool  # False: the profiles were stored
  # True: each tree was measured in a program of its own, and decodes in one, as in a job of several
  # processes, where `program` cannot run.
  apart: bool = False

  @functools.cached_property
  def gain_of_following(self) -> float:
    """By how much runs would be faster, at most, if the choice followed the text (`FirstPlanner`).

    A program that follows the text is used where this is more than `Replanner.min_gain`.
    """
    return self.replanner.gain_of_following(self.plan.choice.batch)

  @property
  def follows(self) -> bool:
    return not self.apart and self.gain_of_following > self.replanner.min_gain

  def made(self, *, own_stores: bool = False) -> tuple[Method, PyTree]:
    """Returns the method with its parameters, and with a chooser that knows of no run.

    Where following the text cannot pay, it is the choice alone (`made_alone`), which is faster than
    the same rounds of `program`. own_stores: stores on the host are new ones, as the candidates'
    `calibration` makes them, and not the user's.
    """
    if self.follows:
      return self.made_program(own_stores=own_stores)
    return self.made_alone(self.plan.choice, own_stores=own_stores)

  def made_alone(self, one: PlannedRound, *, own_stores: bool = False) -> tuple[Method, PyTree]:
    """Returns the method of one kind of round with one tree, in a program of its own."""
    if one.drafter is None:
      return Autoregressive(), None
    (candidate,) = [its for its in self.candidates if its.name == one.drafter]
    params, store = candidate.params, None
    if own_stores and candidate.calibration is not None:
      params, store = candidate.calibration()
    return dataclasses.replace(candidate.speculative(one.topology), store=store), params

  def made_program(self, *, own_stores: bool = False) -> tuple[Planned, PyTree]:
    """Returns the program of all candidates, whatever was chosen, and its parameters.

    It asks the host, so a mesh of several processes refuses it.
    """
    rows = self.plan.choice.batch
    chooser, stores = OnlineChooser(self.replanner, self.program.branches, rows=rows), []
    params = [one.params for one in self.candidates]
    for place, one in enumerate(self.candidates):
      if own_stores and one.calibration is not None:
        params[place], store = one.calibration()
        stores.append(store)
    method = dataclasses.replace(self.program, chooser=chooser, stores=tuple(stores))
    return method, (chooser.handle, tuple(params))

  def line(self) -> str:
    """Returns the choice and its reason in one line."""
    plan = self.plan
    reason = f"predicted {plan.speedup:.2f} times as fast as plain decoding"
    if plan.choice.drafter is None:
      best = next((one for one in plan.ranking if one.drafter is not None), None)
      reason = f"no drafter is predicted to be faster by {self.replanner.min_gain:.0%}"
      if best is not None:
        share = best.tokens_per_second / plan.plain.tokens_per_second
        reason += f": the best, {described(best)}, would be {share:.2f} times as fast"
    if self.follows:
      more = "" if plan.choice.drafter is None else " more"
      reason += f"; following the text could gain {self.gain_of_following:.0%}{more}"
    source = "measured now" if self.measured else "stored profiles"
    return f"auto, batch {plan.choice.batch}: {described(plan.choice)}, {reason} ({source})"


def plan_candidates(
  text: TextModel,
  candidates: Sequence[PlanCandidate],
  request: PlanRequest = PlanRequest(),
  *,
  store: PlanStore | None = None,
  texts: Texts = BUNDLED_TEXTS,
  seconds: float = 60.0,
  measure: str = ONCE,
  say: Progress | None = None,
) -> AutoPlan:
  """Returns a plan to decode as fast as the candidates and plain decoding allow here.

  Profiles of all candidates for this device, mesh, model, request and JAX are taken from the store.
  If one is missing, all are measured (`calibrate`, at most about `seconds` after compiling) and
  stored, with the plan beside them for people to read. With measure="again" all are measured in any
  case and replace what is stored, which may come from a time when the machine was busy. Where
  following the text can pay (`AutoPlan.follows`), the plan follows what happens while the program
  runs (`Replanner`, with a menu of each domain's best rounds), and nothing is compiled again.

  On a mesh of several processes, all of them must call this, with the same arguments. Drafters are
  measured by `calibrate_apart`, by the clock of process 0, which keeps the profiles too. All
  processes get its plan, which has a program of its own and does not follow the text.

  say: takes lines for the user; None: standard error. The last one is the choice and its reason.
  Raises ValueError as `calibrate` and `calibrate_apart` do.
  """
  store, apart = store or PlanStore(), hosts.is_shared(text.mesh)
  say = say or store.say
  if apart:
    # Other texts or candidates would make other programs, which wait for each other.
    names = [one.label for one in candidates]
    same = dict(request=str(request), texts=name_of(texts), candidates=names, measure=measure)
    hosts.check_equal("request for a plan", same)
    store = SharedStore(store.folder, say=store.say)
  if not candidates:
    raise ValueError("there is no drafter available to plan with: name at least one candidate")
  check_measure(measure)
  request = dataclasses.replace(request, texts=name_of(texts))
  drafters = None if measure == AGAIN else _stored(text, candidates, request, store)
  measured = drafters is None
  if drafters is None:
    measured_by = calibrate_apart if apart else calibrate
    drafters = measured_by(text, candidates, request, texts=texts, seconds=seconds, progress=say)
    for one in drafters:
      store.keep(one.acceptance.of, one.acceptance)
      store.keep(one.latency.of, one.latency)
  replanner = _replanner(drafters, candidates, request, apart)
  program = program_of(candidates, request.batch)
  plan = replanner.start_plan(request.batch)
  # Processors differ in the last digits of what they compute.
  plan = plan_of_record(hosts.of_first(plan_record(plan))) if apart else plan
  of = _of_all(text, candidates, request)
  if store.plan(of) != plan:
    store.keep(of, plan)
  found = AutoPlan(program, plan, replanner, tuple(candidates), measured, apart)
  say(found.line())
  return found


def _stored(
  text: TextModel, candidates: Sequence[PlanCandidate], request: PlanRequest, store: PlanStore
) -> tuple[ProfiledDrafter, ...] | None:
  """Returns the profiles of all candidates, or None if one is missing or of other domains."""
  out = []
  for one in candidates:
    acceptance = store.acceptance(request.of(text, one))
    latency = store.latency(request.of_times(text, one, candidates))
    if acceptance is None or latency is None:
      return None
    out.append(ProfiledDrafter(one.name, acceptance, latency, one.siblings, one.on_host))
  domains = {tuple(sorted(one.acceptance.domains)) for one in out}
  return tuple(out) if len(domains) == 1 else None


def _replanner(
  drafters: Sequence[ProfiledDrafter],
  candidates: Sequence[PlanCandidate],
  request: PlanRequest,
  apart: bool,
) -> Replanner:
  new = new_tokens(request)
  first = Replanner(drafters, context=request.context, new_tokens=new, watched=watched(candidates))
  domains = drafters[0].acceptance.domains
  sets = [first.competitors(request.batch, domain) for domain in [None, *domains]]
  sizes = {
    one.name: sizes_apart(one) if apart and not one.whole else one.arm.sizes for one in candidates
  }
  whole = [one.name for one in candidates if one.whole]
  menu = Menu.of(sets, sizes, whole=whole)
  if apart:
    menu = menu.of_own_sizes(whole)
  return dataclasses.replace(first, menu=menu)


def _of_all(
  text: TextModel, candidates: Sequence[PlanCandidate], request: PlanRequest
) -> dict[str, str]:
  """Returns what a plan belongs to: all candidates together."""
  each = [request.of(text, one) for one in candidates]
  joined = functools.reduce(lambda a, b: f"{a} + {b}", [of["drafter"] for of in each])
  verifiers = functools.reduce(lambda a, b: f"{a} + {b}", [of["verifier"] for of in each])
  return {**each[0], "drafter": joined, "verifier": verifiers}
