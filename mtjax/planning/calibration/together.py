"""All candidates measured at once, in the program that will decode with them."""

import collections
import itertools
import statistics
import time
from collections.abc import Sequence

from jaxtyping import PyTree

from mtjax.decode.method import Autoregressive, Method
from mtjax.decode.planned import Planned
from mtjax.planning.calibration.counting import counted_texts, counters_of, with_spread
from mtjax.planning.calibration.prompts import COUNTED, prompts_of, wide_rows
from mtjax.planning.calibration.request import PlanRequest, Progress, new_tokens
from mtjax.planning.calibration.windows import Script, Trial, Windows
from mtjax.planning.candidate import PlanCandidate, program_of
from mtjax.planning.texts import Texts
from mtjax.text import TextModel
from mtjax.tuning.online import ProfiledDrafter
from mtjax.tuning.online.chooser import PLAIN, ScriptedChooser
from mtjax.tuning.profiles import (
  AcceptanceCounts,
  AcceptanceProfile,
  LatencyCurve,
  LatencyProfile,
  fit_curve,
)

_TEXTS = 32  # that acceptance is counted in, at least, if there is time
_COMPILING = 10.0  # seconds, about, for one more program
_ATTEMPTS = 4  # texts per trial, after which a trial that no text was long enough for is given up
_TINY = 1e-9


def calibrate(
  text: TextModel,
  candidates: Sequence[PlanCandidate],
  request: PlanRequest,
  *,
  texts: Texts,
  seconds: float = 60.0,
  progress: Progress = lambda _: None,
) -> tuple[ProfiledDrafter, ...]:
  """Returns the profiles of all candidates, measured by decoding `texts` with all of them in turn.

  The program is the one of `Planned`, with a script in place of a plan (`Script`): four rounds of
  every size of every drafter with a few trees, each beside four plain rounds, over and over. What a
  round takes is the median of its ratios to the plain rounds beside it, with drafting, verification
  and commit. In each pass the texts are also decoded with `Autoregressive`, which is what a user
  has without a plan; it is somewhat faster than plain rounds in the program of all drafters. What a
  drafter's first round takes longer is kept apart, as its reading of the prompt (`Windows.start`).
  What was accepted is counted by domain; each pass decodes other prompts of it, or shorter ones.

  Where drafts follow from texts alone, whole texts are counted (`text_rounds`, `store_rounds`), and
  not only the rounds of this drafter. So it is known how much texts of one domain differ
  (`measured_spread`).

  Texts that are written for this alone are decoded in batches of more rows, where that is faster.

  seconds: for decoding, at most, after the compilation; less once the ratios of the best trial and
  of plain decoding are known to 2 %, and 32 texts were decoded, or drafts are counted in others.
  Each domain is decoded at least once, and until every trial had its turn. Raises ValueError for no
  candidate, for no text, and for a request that the model has no positions for.
  """
  if not candidates:
    raise ValueError("there is no drafter available to plan with: name at least one candidate")
  method = program_of(candidates, request.batch)
  trials = _trials(method, candidates)
  chooser = ScriptedChooser(Script(trials))
  new = new_tokens(request)
  prompts = prompts_of(text, texts, request)
  (variants,) = {len(own) for own in prompts.values()}

  def decode(domain: str, number: int, method: Method, params: PyTree, max_tokens: int):
    rows = prompts[domain][number % variants]
    _, run = text.generate(
      rows, eos=(), method=method, method_params=params, max_tokens=max_tokens,
      sampling=request.sampling, key=number,
    )  # fmt: skip
    return run

  def run(domain: str, number: int):
    # Stores on the host live as long as their handles are held.
    stores = [one.calibration and one.calibration() for one in candidates]
    given = tuple(
      one.params if made is None else made[0] for one, made in zip(candidates, stores, strict=True)
    )
    outputs = decode(domain, number, method, (chooser.handle, given), new).tokens
    found = chooser.reports[:]
    chooser.reports.clear()
    whole, first = (
      decode(domain, number, Autoregressive(), None, size).counters["seconds"] for size in (new, 1)
    )
    return found, outputs, max(whole - first, _TINY) / max(new - 1, 1)

  names = ", ".join(one.name for one in candidates)
  of_text = counters_of(candidates)
  progress(f"measuring {names} at batch {request.batch}: compiling, once for this machine")
  domain = next(iter(prompts))
  _, outputs, _ = run(domain, 0)
  for count in of_text.values():
    count(prompts[domain][0], outputs)
  begin = time.perf_counter()
  counts = {(one.name, name): AcceptanceCounts.none(1, 1) for one in candidates for name in texts}
  lengths: dict[tuple[str, str], dict[int, list[int]]] = collections.defaultdict(dict)
  of_branch = {branch: name for (name, _), branch in method.branches.items()}
  windows = Windows(trials, of_branch)
  for number in itertools.count(1):
    progress(f"measuring {names}: pass {number}, {time.perf_counter() - begin:.0f} s")
    for domain in prompts:
      reports, outputs, alone = run(domain, number)
      windows.add(reports, alone)
      for name, count in of_text.items():
        variant = number % variants
        each = count(prompts[domain][variant], outputs)
        counts[name, domain] = sum(each, counts[name, domain])
        lengths[name, domain][variant] = [one.rounds for one in each]
      for order, report, _ in reports:
        if order.branch != PLAIN and of_branch[order.branch] not in of_text:
          counts[of_branch[order.branch], domain] += report.counts
    tried = number * len(prompts) >= _ATTEMPTS * len(trials)
    over = time.perf_counter() - begin > seconds
    known = len(of_text) == len(candidates) or number * len(prompts) * request.batch >= _TEXTS
    if (windows.enough and known) or (over and (tried or not windows.missing)):
      break
  if windows.missing:
    raise ValueError(
      f"texts of {new} tokens end before every drafter had its turn: give a longer context"
    )
  if of_text and min(number, variants) * request.batch < COUNTED:
    progress(f"measuring {names}: counting drafts in {COUNTED} texts of each domain")
    in_turn = len(prompts) * COUNTED / request.batch * windows.alone * new
    rows = request.batch if in_turn < _COMPILING else wide_rows(request)
    for name, domain, each in counted_texts(text, prompts, of_text, request, rows):
      counts[name, domain] = sum(each[1:], each[0])
      lengths[name, domain] = {0: [one.rounds for one in each]}

  def acceptance(one: PlanCandidate) -> AcceptanceProfile:
    profile = AcceptanceProfile(
      request.of(text, one), {domain: counts[one.name, domain] for domain in prompts}
    )
    if one.name not in of_text:
      return profile
    rounds = {name: itertools.chain(*lengths[one.name, name].values()) for name in prompts}
    return with_spread(profile, rounds, texts, new)

  return tuple(
    ProfiledDrafter(
      one.name,
      acceptance(one),
      LatencyProfile(
        request.of_times(text, one, candidates), (_curve(method, one, request, windows),)
      ),
      one.siblings,
      one.on_host,
    )
    for one in candidates
  )


def _trials(method: Planned, candidates: Sequence[PlanCandidate]) -> list[Trial]:
  return [
    (method.branches[one.name, size], shape)
    for one in candidates
    for size in one.arm.sizes
    for shape in one.trials(size)
  ]


def _curve(
  method: Planned, candidate: PlanCandidate, request: PlanRequest, windows: Windows
) -> LatencyCurve:
  """Returns times of rounds: of a size what its trees take, and a line over the steps of drafting.

  Nothing is split off as fixed: it is in the times of the sizes.
  """
  arm, plain = candidate.arm, windows.plain
  largest = max(arm.sizes)
  points: dict[tuple[int, int], float] = {}
  for size in arm.sizes:
    each: dict[int, list[float]] = {}
    for shape in candidate.trials(size):
      took = windows.seconds((method.branches[arm.name, size], shape))
      each.setdefault(shape.height, []).append(took)
    points |= {(size, height): statistics.median(took) for height, took in each.items()}
  high = max(height for size, height in points if size == largest)
  low = min(height for size, height in points if size == largest)
  step = _TINY
  if high > low:
    step = max((points[largest, high] - points[largest, low]) / (high - low), _TINY)
  verify = [(size, max(took - step * height, _TINY)) for (size, height), took in points.items()]
  verify.append((1, min(plain, *(took for _, took in verify))))
  height = max(arm.height, 1)
  return fit_curve(
    request.batch,
    request.context,
    verify=verify,
    draft=[(steps, step * steps) for steps in sorted({1, height})],
    plain=plain,
    alone=windows.alone,
    start=windows.start(arm.name),
  )
