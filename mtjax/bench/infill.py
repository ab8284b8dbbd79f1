"""Compares methods of filling: their speed, the likelihood of their samples, and exact matches."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mtjax.anysubset import (
  FillMethod,
  SelfDraft,
  Sequential,
  fill,
  log_likelihood,
  make_canvas,
  stream,
)
from mtjax.anysubset.blanks import Blanked
from mtjax.bench.systems.assd_uncached import assd_uncached
from mtjax.models import Model, Params
from mtjax.registry.methods import filling, get_fill_method
from mtjax.sampling.logits import Sampling

Problems = Sequence[tuple[Blanked, list[int]]]


@dataclasses.dataclass(frozen=True)
class UncachedAssd:
  """The authors' algorithm with this window: no cache, all entries in every pass."""

  window: int

  def __post_init__(self):
    if self.window < 1:
      raise ValueError(f"window must be at least 1, got {self.window}")


def get_way(name: str) -> FillMethod | UncachedAssd:
  """Returns the way of filling that the benchmark calls `name`, as "self4" with window 4.

  Raises ValueError, with the names there are, for another name.
  """
  entries = {known: get_fill_method(known) for known in filling()}
  # The self-draft of the paper has no bonus token; the registry's method of that name has one.
  own = dict(
    self=lambda window: SelfDraft(window, bonus=False), bonus=SelfDraft, authors=UncachedAssd
  )
  makers = {known: entry.of_window for known, entry in entries.items()} | own
  alone = [known for known, entry in entries.items() if entry.window is None]
  kind = name.rstrip("0123456789")
  window = name.removeprefix(kind)
  if kind not in makers or (kind in alone) != (not window):
    known = ", ".join(maker + ("" if maker in alone else "4") for maker in makers)
    raise ValueError(f"way {name!r} is none of {known}, where a number is the window")
  try:
    return makers[kind](int(window or 1))
  except ValueError as error:
    raise ValueError(f"way {name!r}: {error}") from None


@dataclasses.dataclass(frozen=True)
class InfillRow:
  """The figures of one method on one set, over all texts, filled one at a time."""

  name: str
  forwards: float  # forward passes per text
  tokens_per_forward: float
  milliseconds: float  # per token: median over repeats of the mean
  speedup: float  # over the first method: median of the ratios within a repeat
  speedup_later: float | None  # without the first pass; None: every pass reads all, or see `later`
  own_nats: float  # -log p per sampled token, under the model
  own_error: float | None  # its standard error, over repeats; None: there is one
  exact: float  # share of texts that were filled as the original


@dataclasses.dataclass(frozen=True)
class InfillReport:
  """The figures of all methods on one set."""

  targets: float  # target tokens per text
  nats: float  # -log p per missing token under the model, whatever the method
  first_milliseconds: float  # per text: median of the pass that reads the context
  rows: list[InfillRow]


def measure(
  model: Model,
  params: Params,
  problems: Problems,
  methods: Mapping[str, FillMethod | UncachedAssd],
  *,
  temperature: float,
  repeats: int,
  progress: Callable[[str], None] = lambda text: None,
) -> InfillReport:
  """Fills every text `repeats` times with every method, interleaved, one text at a time.

  Compilation is not counted; speed is relative to the first of `methods`. Raises
  ValueError for no text, no method and fewer than one repeat.
  """
  if not problems or not methods or repeats < 1:
    raise ValueError("there must be at least one text, one method and one repeat")
  canvases = [_canvas(model, blanked) for blanked, _ in problems]
  fillers = {name: _filler(model, params, method, temperature) for name, method in methods.items()}
  seconds = {name: np.zeros(repeats) for name in methods}
  samples: dict[str, list] = {name: [] for name in methods}
  reading = np.zeros(repeats)
  for canvas in canvases:
    _read(model, params, canvas, temperature)
  for name, filler in fillers.items():
    progress(f"compiling {name}")
    for canvas in canvases:
      filler(canvas, 0)
  for repeat in range(repeats):
    progress(f"repeat {repeat + 1} of {repeats}")
    for number, canvas in enumerate(canvases):
      begin = time.perf_counter()
      _read(model, params, canvas, temperature)
      reading[repeat] += time.perf_counter() - begin
      for name, filler in fillers.items():
        begin = time.perf_counter()
        result = filler(canvas, 1 + repeat * len(canvases) + number)
        seconds[name][repeat] += time.perf_counter() - begin
        samples[name].append((number, *result))
  first = next(iter(methods))
  total = sum(int(canvas.is_target.sum()) for canvas in canvases)
  rows = []
  for name in methods:
    nats = np.array([_nats(model, params, canvases[i], token) for i, token, _ in samples[name]])
    forwards = sum(passes for _, _, passes in samples[name]) / repeats
    texts = [_missing(canvases[i], token) for i, token, _ in samples[name]]
    exact = [text == problems[i][1] for text, (i, *_) in zip(texts, samples[name], strict=True)]
    own = nats.reshape(repeats, -1).sum(axis=1) / total
    rows.append(
      InfillRow(
        name=name,
        forwards=forwards / len(problems),
        tokens_per_forward=total / forwards,
        milliseconds=float(np.median(seconds[name]) / total * 1e3),
        speedup=float(np.median(seconds[first] / seconds[name])),
        speedup_later=None
        if isinstance(methods[name], UncachedAssd)
        else later(seconds[first], seconds[name], reading),
        own_nats=float(own.mean()),
        own_error=float(own.std(ddof=1) / np.sqrt(repeats)) if repeats > 1 else None,
        exact=float(np.mean(exact)),
      )
    )
  pairs = [(c, _with(c, tokens)) for c, (_, tokens) in zip(canvases, problems, strict=True)]
  true = sum(_nats(model, params, *pair) for pair in pairs)
  first_milliseconds = float(np.median(reading) / len(problems) * 1e3)
  return InfillReport(total / len(problems), true / total, first_milliseconds, rows)


def later(
  first: Float[np.ndarray, " R"], own: Float[np.ndarray, " R"], reading: Float[np.ndarray, " R"]
) -> float | None:
  """Returns the median ratio of two methods' times without `reading`, their common first pass.

  None if a method took no longer than that pass in some repeat: then the clock is too coarse.
  """
  of_first, of_own = first - reading, own - reading
  if min(of_first.min(), of_own.min()) <= 0:
    return None
  return float(np.median(of_first / of_own))


def _read(model, params, canvas, temperature):
  """Runs the pass that every method begins with, and samples the first token."""
  sampling = Sampling(temperature=temperature)
  next(stream(model, params, canvas, method=Sequential(), sampling=sampling))


def _canvas(model, blanked):
  token, is_target = np.array([blanked.tokens()]), np.array([blanked.is_target()])
  return make_canvas(model.config, token, is_target)


def _filler(model, params, method, temperature):
  if isinstance(method, UncachedAssd):

    def run(canvas, seed):
      result = assd_uncached(
        model, params, canvas, window=method.window, temperature=temperature, key=seed
      )
      return result.token, result.forwards

    return run
  sampling = Sampling(temperature=temperature)

  def run_cached(canvas, seed):
    result = fill(model, params, canvas, method=method, sampling=sampling, key=seed)
    return result.token[0], int(result.forwards[0])

  return run_cached


def _missing(canvas, token):
  return np.asarray(token)[np.asarray(canvas.is_target)[0]].tolist()


def _with(canvas, missing):
  token = np.array(canvas.token)[0]
  token[np.asarray(canvas.is_target)[0]] = missing
  return token


def _nats(model, params, canvas, token):
  """Returns -log p of the target tokens."""
  filled = canvas.replace(token=np.asarray(token)[None])
  return float(-log_likelihood(model, params, filled).sum())
