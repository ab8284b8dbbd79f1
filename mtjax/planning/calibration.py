"""All candidates measured at once, in the program that will decode with them."""

import collections
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from jaxtyping import PyTree

from mtjax.decode.method import Autoregressive, Method
from mtjax.decode.planned import Planned
from mtjax.planning.candidate import CountRounds, PlanCandidate, counter_of_text, program_of
from mtjax.planning.identity import identity
from mtjax.planning.texts import Texts, same_length
from mtjax.planning.windows import Script, Trial, Windows
from mtjax.sampling.canonical import sampling_name
from mtjax.sampling.logits import Sampling
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
from mtjax.tuning.whole_runs import measured_spread

_TOKENS = 96  # of a text
_VARIANTS = 8  # batches of a domain, of other prompts or of shorter ones, decoded in turn
_TEXTS = 32  # that acceptance is counted in, at least, if there is time
_COUNTED = 16  # texts of a domain, where drafts follow from texts alone
_COMPILING = 10.0  # seconds, about, for one more program
_WIDE = 4096  # tokens of a batch that is decoded for its text alone
_ATTEMPTS = 4  # texts per trial, after which a trial that no text was long enough for is given up
_TINY = 1e-9

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class PlanRequest:
  """What is planned for: profiles and plans of another request are others."""

  batch: int = 1
  context: int = 256  # tokens per row, the new ones among them
  sampling: Sampling | None = None
  texts: str = "bundled"  # a name of the texts to calibrate with

  def of(self, text: TextModel, candidate: PlanCandidate) -> dict[str, str]:
    """Returns the identity of profiles of a candidate for this request."""
    return {
      **identity(text, candidate.label, candidate.params),
      "verifier": str(candidate.arm.method.verifier),
      "sampling": sampling_name(self.sampling),
      "texts": self.texts,
      "batch": str(self.batch),
      "context": str(self.context),
    }

  def of_times(
    self, text: TextModel, candidate: PlanCandidate, candidates: Sequence[PlanCandidate]
  ) -> dict[str, str]:
    """Returns the identity of times: all candidates are measured together."""
    beside = " + ".join(one.label for one in candidates)
    return {**self.of(text, candidate), "candidates": beside}


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
  if of_text and min(number, variants) * request.batch < _COUNTED:
    progress(f"measuring {names}: counting drafts in {_COUNTED} texts of each domain")
    in_turn = len(prompts) * _COUNTED / request.batch * windows.alone * new
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


def counters_of(candidates: Sequence[PlanCandidate]) -> dict[str, CountRounds]:
  """Returns what counts rounds in texts (`counter_of_text`), of the candidates that have it."""
  counters = {one.name: counter_of_text(one) for one in candidates}
  return {name: count for name, count in counters.items() if count is not None}


def with_spread(
  profile: AcceptanceProfile, rounds: Mapping[str, Iterable[int]], texts: Texts, new: int
) -> AcceptanceProfile:
  """Returns a profile with the spread of its texts (`measured_spread`).

  rounds: of each text of `new` tokens, by domain. texts: what they continue; shorter versions of a
  prompt are other rounds, but hardly other texts.
  """
  rates = [profile.rates(domain) for domain in rounds]
  different = [len(texts[domain]) for domain in rounds]
  each = [list(own) for own in rounds.values()]
  spread = measured_spread(each, rates, max(new - 1, 1), different=different)
  return dataclasses.replace(profile, spread=spread)


def _trials(method: Planned, candidates: Sequence[PlanCandidate]) -> list[Trial]:
  return [
    (method.branches[one.name, size], shape)
    for one in candidates
    for size in one.arm.sizes
    for shape in one.trials(size)
  ]


def new_tokens(request: PlanRequest) -> int:
  """Returns the new tokens per row of a text that is calibrated with."""
  return min(_TOKENS, max(request.context // 2, 1))


def prompts_of(
  text: TextModel, texts: Texts, request: PlanRequest
) -> dict[str, list[list[list[int]]]]:
  """Returns batches of prompts per domain, as long as the context says (`same_length`).

  The rates of a single text say little of its domain.
  """
  if request.context > text.model.config.max_position:
    raise ValueError(
      f"a context of {request.context} tokens is longer than the model's "
      f"{text.model.config.max_position} positions: give a shorter one"
    )
  if not texts:
    raise ValueError("there is no text to calibrate with: give at least one domain with a prompt")
  length = max(request.context - new_tokens(request), 1)
  count = _ceil(max(_VARIANTS * request.batch, _COUNTED), request.batch)
  rows = same_length(text, texts, length, rows=count)
  return {
    domain: [own[at : at + request.batch] for at in range(0, len(own), request.batch)]
    for domain, own in rows.items()
  }


def counted_texts(
  text: TextModel,
  prompts: Mapping[str, Sequence[Sequence[list[int]]]],
  counters: Mapping[str, CountRounds],
  request: PlanRequest,
  rows: int,
) -> Iterator[tuple[str, str, list[AcceptanceCounts]]]:
  """Yields a drafter, a domain, and the counts of texts that plain decoding writes.

  It writes `rows` of them at a time; the drafter meets them in batches of the request.
  """
  new, batch = new_tokens(request), request.batch
  for domain, groups in grouped(prompts, rows).items():
    own, outputs = list(itertools.chain(*groups)), []
    for number, rows_of in enumerate(groups):
      _, run = text.generate(rows_of, eos=(), max_tokens=new, sampling=request.sampling, key=number)
      outputs += run.tokens
    groups = [slice(at, at + batch) for at in range(0, len(own), batch)]
    for name, count in counters.items():
      yield name, domain, [one for its in groups for one in count(own[its], outputs[its])]


def grouped(
  prompts: Mapping[str, Sequence[Sequence[list[int]]]], rows: int
) -> dict[str, list[list[list[int]]]]:
  """Returns the prompts that drafts are counted after, by domain, in full batches of `rows`."""
  out = {}
  for domain, batches in prompts.items():
    own = list(itertools.chain(*batches))
    own = [own[place % len(own)] for place in range(_ceil(_COUNTED, rows))]
    out[domain] = [own[at : at + rows] for at in range(0, len(own), rows)]
  return out


def wide_rows(request: PlanRequest) -> int:
  """Returns the rows of batches that are decoded for their text alone: several of the request."""
  return request.batch * max(min(_COUNTED, _WIDE // request.context) // request.batch, 1)


def _ceil(count: int, unit: int) -> int:
  return -(-count // unit) * unit


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
