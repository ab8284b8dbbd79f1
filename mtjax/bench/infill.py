"""How fast each way of filling is, that their law is one, and how well the model fills."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mtjax.anysubset import FillMethod, Sequential, fill, log_likelihood, make_canvas, stream
from mtjax.anysubset.blanks import Blanked
from mtjax.bench.systems.assd_uncached import assd_uncached
from mtjax.models import Model, Params
from mtjax.sampling.logits import Sampling

Problems = Sequence[tuple[Blanked, list[int]]]


@dataclasses.dataclass(frozen=True)
class Uncached:
  """The authors' algorithm with this window: no cache, all entries in every pass."""

  window: int

  def __post_init__(self):
    if self.window < 1:
      raise ValueError(f"window must be at least 1, got {self.window}")


@dataclasses.dataclass(frozen=True)
class InfillRow:
  """One way of filling one set. Rates and times are over all texts, one at a time."""

  name: str
  forwards: float  # a text
  tokens_per_forward: float
  milliseconds: float  # a token: median over repeats of the mean
  speedup: float  # over the first way: median of the ratios within a repeat
  speedup_later: float | None  # without the first pass; None: every pass reads all, or see `later`
  own_nats: float  # -log p a drawn token, under the model
  own_error: float | None  # its standard error, over repeats; None: there is one
  exact: float  # share of texts that were filled as they were


@dataclasses.dataclass(frozen=True)
class InfillReport:
  targets: float  # tokens a text
  nats: float  # -log p a missing token: of the model, whichever way it fills
  first_milliseconds: float  # a text: median of the pass that reads what is given
  rows: list[InfillRow]


def measure(
  model: Model,
  params: Params,
  problems: Problems,
  ways: Mapping[str, FillMethod | Uncached],
  *,
  temperature: float,
  repeats: int,
  progress: Callable[[str], None] = lambda text: None,
) -> InfillReport:
  """Every way fills every text `repeats` times, interleaved, one text at a time.

  Compilation is not counted; the first of `ways` is the one that speed is a ratio to. Raises
  ValueError for no text, no way and fewer than one repeat.
  """
  if not problems or not ways or repeats < 1:
    raise ValueError("there must be a text, a way and a repeat at least")
  canvases = [_canvas(model, blanked) for blanked, _ in problems]
  fillers = {name: _filler(model, params, way, temperature) for name, way in ways.items()}
  seconds = {name: np.zeros(repeats) for name in ways}
  drawn: dict[str, list] = {name: [] for name in ways}
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
        found = filler(canvas, 1 + repeat * len(canvases) + number)
        seconds[name][repeat] += time.perf_counter() - begin
        drawn[name].append((number, *found))
  first = next(iter(ways))
  total = sum(int(canvas.is_target.sum()) for canvas in canvases)
  rows = []
  for name in ways:
    nats = np.array([_nats(model, params, canvases[i], token) for i, token, _ in drawn[name]])
    forwards = sum(passes for _, _, passes in drawn[name]) / repeats
    texts = [_missing(canvases[i], token) for i, token, _ in drawn[name]]
    exact = [text == problems[i][1] for text, (i, *_) in zip(texts, drawn[name], strict=True)]
    own = nats.reshape(repeats, -1).sum(axis=1) / total
    rows.append(
      InfillRow(
        name=name,
        forwards=forwards / len(problems),
        tokens_per_forward=total / forwards,
        milliseconds=float(np.median(seconds[name]) / total * 1e3),
        speedup=float(np.median(seconds[first] / seconds[name])),
        speedup_later=None
        if isinstance(ways[name], Uncached)
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
  """Median of the ratios of two ways' times without `reading`, the pass that both begin with.

  None where a way took no longer than that pass in some repeat: the clock is too coarse then.
  """
  of_first, of_own = first - reading, own - reading
  if min(of_first.min(), of_own.min()) <= 0:
    return None
  return float(np.median(of_first / of_own))


def _read(model, params, canvas, temperature):
  """The pass that every way begins with, and the first token."""
  sampling = Sampling(temperature=temperature)
  next(stream(model, params, canvas, method=Sequential(), sampling=sampling))


def _canvas(model, blanked):
  token, is_target = np.array([blanked.tokens()]), np.array([blanked.is_target()])
  return make_canvas(model.config, token, is_target)


def _filler(model, params, way, temperature):
  if isinstance(way, Uncached):

    def run(canvas, seed):
      found = assd_uncached(
        model, params, canvas, window=way.window, temperature=temperature, key=seed
      )
      return found.token, found.forwards

    return run
  sampling = Sampling(temperature=temperature)

  def run_cached(canvas, seed):
    found = fill(model, params, canvas, method=way, sampling=sampling, key=seed)
    return found.token[0], int(found.forwards[0])

  return run_cached


def _missing(canvas, token):
  return np.asarray(token)[np.asarray(canvas.is_target)[0]].tolist()


def _with(canvas, missing):
  token = np.array(canvas.token)[0]
  token[np.asarray(canvas.is_target)[0]] = missing
  return token


def _nats(model, params, canvas, token):
  """-log p of the asked tokens."""
  filled = canvas.replace(token=np.asarray(token)[None])
  return float(-log_likelihood(model, params, filled).sum())
