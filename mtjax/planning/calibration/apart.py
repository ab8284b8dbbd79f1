"""Candidates measured apart, each tree in a program of its own: on a mesh of several processes."""

import itertools
import statistics
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import PyTree

from mtjax import hosts
from mtjax.decode.generation import Generation, stream
from mtjax.decode.method import Autoregressive, Method
from mtjax.planning.calibration.counting import (
  counted_texts,
  counters_of,
  depths_of,
  ranks_of,
  with_spread,
)
from mtjax.planning.calibration.prompts import grouped, prompts_of, wide_rows
from mtjax.planning.calibration.request import PlanRequest, Progress, new_tokens
from mtjax.planning.calibration.windows import NARROW, half_interval
from mtjax.planning.candidate import PlanCandidate
from mtjax.planning.texts import Texts
from mtjax.text import TextModel
from mtjax.trees import Topology
from mtjax.tuning.online import ProfiledDrafter
from mtjax.tuning.profiles import (
  AcceptanceCounts,
  AcceptanceProfile,
  LatencyCurve,
  LatencyProfile,
  fit_curve,
)

_LEAST, _ENOUGH = 3, 5  # passes: at least, and before an interval says something
_EACH, _STEP = 16, 4  # sizes of trees: all up to the first, and every fourth beyond it
_TINY = 1e-9

_Key = tuple[str, Topology] | None  # a drafter with a tree; None: plain decoding


def calibrate_apart(
  text: TextModel,
  candidates: Sequence[PlanCandidate],
  request: PlanRequest,
  *,
  texts: Texts,
  seconds: float = 60.0,
  progress: Progress = lambda _: None,
) -> tuple[ProfiledDrafter, ...]:
  """Returns the profiles of all candidates, measured in programs of their own.

  `calibrate` measures in one program, which asks the host which drafter is next. Where several
  processes run one program, each would ask a host of its own. Here every drafter decodes whole
  texts with each of its trees (`PlanCandidate.shapes`), in turn with plain decoding. What a round
  takes is the median of its ratios to the rounds of plain decoding in the same pass, and what the
  first token takes longer than that of plain decoding is the drafter's reading of the prompt. All
  times are those of process 0, and so is the number of passes.

  Acceptance is counted in texts that plain decoding writes, where drafts follow from texts alone or
  a greedy request is drafted by a model. Otherwise the drafter decodes (`ranks_of`, `depths_of`).

  seconds: for the passes, at most, after everything is compiled; less once all ratios are known to
  2 %. There are at least 3 of them. Raises ValueError for candidates with a store on the host, for
  none, for no text, and for a request that the model has no positions for.
  """
  if not candidates:
    raise ValueError("there is no drafter available to plan with: name at least one candidate")
  check_on_devices(candidates)
  new, prompts = new_tokens(request), prompts_of(text, texts, request)
  if new < 2:
    raise ValueError("texts of one token have no round to measure: give a longer context")
  times = _measured(text, candidates, request, prompts, seconds, progress)
  of_text = counters_of(candidates)
  progress("counting drafts")
  counted: dict[str, dict[str, list[AcceptanceCounts]]] = {name: {} for name in of_text}
  for name, domain, each in counted_texts(text, prompts, of_text, request, wide_rows(request)):
    counted[name][domain] = each
  groups = grouped(prompts, wide_rows(request))

  def acceptance(one: PlanCandidate) -> AcceptanceProfile:
    of = request.of(text, one)
    if one.name not in counted:
      progress(f"counting drafts of {one.name}")
      count = depths_of if one.whole else ranks_of
      each = {name: count(text, one, request, own) for name, own in groups.items()}
      return AcceptanceProfile(of, {name: sum(own[1:], own[0]) for name, own in each.items()})
    each = counted[one.name]
    profile = AcceptanceProfile(of, {name: sum(own[1:], own[0]) for name, own in each.items()})
    rounds = {name: [counts.rounds for counts in own] for name, own in each.items()}
    return with_spread(profile, rounds, texts, new)

  return tuple(
    ProfiledDrafter(
      one.name,
      acceptance(one),
      LatencyProfile(request.of_times(text, one, candidates), (times.curve(one, request),)),
      one.siblings,
    )
    for one in candidates
  )


def check_on_devices(candidates: Sequence[PlanCandidate]) -> None:
  """Raises ValueError for candidates that keep something on the host."""
  if stores := [one.name for one in candidates if one.on_host]:
    raise ValueError(
      f"{', '.join(stores)} would keep a store of its own in each of {hosts.count()} processes: "
      "there, plan with drafters that are on the devices alone, such as lookup and draft"
    )


def sizes_apart(candidate: PlanCandidate) -> list[int]:
  """Returns the sizes of trees to choose from, in programs of their own.

  They are all up to 16, every fourth beyond it, and the largest that is measured.
  """
  largest = max(shape.size for shape in candidate.shapes)
  return [*range(2, min(largest, _EACH)), *range(_EACH, largest, _STEP), largest]


class _Times:
  """Seconds of the first token and of a round, of every tree in every pass."""

  def __init__(self, keys: Sequence[_Key]):
    self._first: dict[_Key, list[float]] = {key: [] for key in keys}
    self._round: dict[_Key, list[float]] = {key: [] for key in keys}

  def add(self, key: _Key, first: float, each: float) -> None:
    self._first[key].append(first)
    self._round[key].append(each)

  @property
  def passes(self) -> int:
    return len(self._round[None])

  @property
  def enough(self) -> bool:
    """True if all ratios are known well."""
    return self.passes >= _ENOUGH and all(
      half_interval(self._ratios(key)) <= NARROW for key in self._round if key is not None
    )

  def curve(self, candidate: PlanCandidate, request: PlanRequest) -> LatencyCurve:
    """Returns times of rounds by the entries of the trees, and a line over the steps of drafting.

    Nothing is split off as fixed: it is in the times of the entries.
    """
    plain = statistics.median(self._round[None])
    took = {
      shape: plain * statistics.median(self._ratios((candidate.name, shape)))
      for shape in candidate.shapes
    }
    # Where a drafter chooses alone, drafts of several branches stand side by side.
    largest = max(candidate.arm.sizes)
    points = [
      (largest if candidate.whole else shape.size, shape.height, each)
      for shape, each in took.items()
    ]
    step = _seconds_per_step(points)
    verify = [(size, max(each - step * height, _TINY)) for size, height, each in points]
    verify.append((1, min(plain, *(each for _, each in verify))))
    height = max(shape.height for shape in took)
    starts = [self._start((candidate.name, shape)) for shape in took]
    return fit_curve(
      request.batch,
      request.context,
      verify=verify,
      draft=[(steps, step * steps) for steps in sorted({1, height})],
      plain=plain,
      alone=plain,
      start=max(statistics.median(starts), 0.0),
    )

  def _ratios(self, key: _Key) -> list[float]:
    pairs = zip(self._round[key], self._round[None], strict=True)
    return [each / plain for each, plain in pairs]

  def _start(self, key: _Key) -> float:
    pairs = zip(self._first[key], self._first[None], strict=True)
    return statistics.median(first - plain for first, plain in pairs)


def _seconds_per_step(points: Sequence[tuple[int, int, float]]) -> float:
  """Returns what a further step of drafting takes, where trees of other heights tell it.

  It is the slope of a plane over entries and steps (least squares). In chains both grow together,
  so nothing tells them apart, and nothing needs to.
  """
  entries, steps, seconds = np.array(points, float).T
  plane = np.column_stack([np.ones(len(points)), entries, steps])
  if np.linalg.matrix_rank(plane) < 3:
    return _TINY
  (_, _, step), *_ = np.linalg.lstsq(plane, seconds, rcond=None)
  return max(float(step), _TINY)


def _measured(
  text: TextModel,
  candidates: Sequence[PlanCandidate],
  request: PlanRequest,
  prompts: dict[str, list[list[list[int]]]],
  seconds: float,
  progress: Progress,
) -> _Times:
  methods: dict[_Key, tuple[Method, PyTree]] = {None: (Autoregressive(), None)}
  for one in candidates:
    for shape in one.shapes:
      methods[one.name, shape] = one.speculative(shape), one.params
  # Of all domains in turn.
  batches = list(itertools.chain(*zip(*prompts.values(), strict=True)))
  times, names = _Times(list(methods)), ", ".join(one.name for one in candidates)

  def one_run(key: _Key, number: int) -> tuple[float, float]:
    method, params = methods[key]
    return _run(text, batches[number % len(batches)], request, method, params, number)

  for number, key in enumerate(methods, 1):
    progress(
      f"measuring {names} at batch {request.batch}: compiling program {number} of {len(methods)}, "
      "once for these machines"
    )
    one_run(key, 0)
  begin = time.perf_counter()
  while not times.enough:
    gone = time.perf_counter() - begin
    # Every process must stop after the same pass.
    if hosts.agreed(times.passes >= _LEAST and gone > seconds, text.mesh):
      break
    progress(f"measuring {names}: pass {times.passes + 1}, {gone:.0f} s")
    number = times.passes
    for key in methods:
      times.add(key, *hosts.agreed(one_run(key, number), text.mesh))
  return times


def _run(
  text: TextModel,
  rows: Sequence[Sequence[int]],
  request: PlanRequest,
  method: Method,
  params: PyTree,
  key: int,
) -> tuple[float, float]:
  """Returns the seconds of the first token, and of a round of those after it."""
  new = new_tokens(request)
  ends: list[Generation] = []
  begin = time.perf_counter()
  # All rounds after the first token are one piece.
  pieces = stream(
    text.model, text.params, rows, every=new, on_finish=ends.append, method=method,
    method_params=params, max_tokens=new, sampling=request.sampling, key=key, mesh=text.mesh,
  )  # fmt: skip
  first, *_, last = (time.perf_counter() - begin for _ in pieces)
  return first, max(last - first, _TINY) / max([*ends[0].rounds, 1])
