"""Methods of denoising beside each other: forward passes, time, and the quality of their texts."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mtjax.diffusion.denoising import Denoised
from mtjax.diffusion.texts import with_readable_layers
from mtjax.evaluate.generative import JudgedText, TextQuality, judge_texts
from mtjax.registry.denoising.denoiser import Denoiser
from mtjax.registry.denoising.methods import AnyDenoiser
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

QUALITY = 0.01  # what "the same quality" allows, as a share of both figures


@dataclasses.dataclass(frozen=True)
class DenoisingCase:
  """A method of denoising in a comparison."""

  name: str
  denoiser: AnyDenoiser
  temperature: float
  # The case of one token per pass that it is compared with; its own name: it is that one.
  reference: str

  @property
  def cache(self) -> str:
    """The name of its cache; "-" for methods without that setting, such as machines of blocks."""
    return str(self.denoiser.cache) if isinstance(self.denoiser, Denoiser) else "-"

  @property
  def reads_layers(self) -> bool:
    """Whether its cache looks between the layers of a model."""
    return isinstance(self.denoiser, Denoiser) and self.denoiser.caching.reads_layers


@dataclasses.dataclass(frozen=True)
class DenoisingResult:
  """The figures of a case."""

  case: DenoisingCase
  tokens_per_forward: float
  quality: TextQuality
  error: float  # standard error of `quality.bits_per_byte`
  seconds: Mapping[int, float]  # batch -> median seconds per token of a batch
  speed_up: Mapping[int, float]  # batch -> median over rounds of the reference's time over its own

  def keeps(self, reference: "DenoisingResult") -> bool:
    """Returns whether its texts are as good as the reference's.

    That is if neither figure is worse by more than the share `QUALITY`.
    """
    mine, theirs = self.quality, reference.quality
    return (
      mine.bits_per_byte <= (1 + QUALITY) * theirs.bits_per_byte
      and mine.entropy >= (1 - QUALITY) * theirs.entropy
    )


def measure(
  text: TextModel,
  judge: TextModel,
  cases: Sequence[DenoisingCase],
  prompts: Sequence[Sequence[int]],
  *,
  batches: Sequence[int],
  rounds: int,
  progress: Callable[[str], None] = lambda what: None,
) -> list[DenoisingResult]:
  """Returns the figures of each case.

  Quality and tokens per forward are those of one text for each prompt. Times are those of the first
  prompts, as many as a batch has; in a round every case runs once, in turn. Raises ValueError for a
  number of prompts that is no multiple of the largest batch, and for a case whose reference is none
  of them.
  """
  _check(cases, prompts, batches)
  run, most = CaseRunner(text), max(batches)
  texts = {}
  for number, case in enumerate(cases, 1):
    progress(f"writing texts: {case.name}, {number} of {len(cases)}")
    texts[case.name] = [
      run(case, prompts[first : first + most], seed=first) for first in range(0, len(prompts), most)
    ]
  seconds, speed_up = {}, {}
  for batch in batches:
    taken = {case.name: [] for case in cases}
    # The texts compiled the programs of the largest batch.
    for index in range(int(batch == most), rounds + 1):
      progress(
        f"batch {batch}: round {index} of {rounds}" if index else f"batch {batch}: compiling"
      )
      for case in cases:
        began = time.perf_counter()
        done = run(case, prompts[:batch], seed=0)
        if index:
          count = sum(map(len, done.tokens))
          taken[case.name].append((time.perf_counter() - began) / count)
    for case in cases:
      own, reference = taken[case.name], taken[case.reference]
      seconds[case.name, batch] = statistics.median(own)
      ratios = [theirs / mine for mine, theirs in zip(own, reference, strict=True)]
      speed_up[case.name, batch] = statistics.median(ratios)
  results = []
  for case in cases:
    progress(f"scoring {case.name}")
    runs = texts[case.name]
    judged = judge_texts(
      judge,
      [text.tokenizer.decode(row) for one in runs for row in one.tokens],
      [text.tokenizer.decode(prompt) for prompt in prompts],
    )
    forwards = sum(one.counters["forwards"] for one in runs)
    tokens = sum(one.counters["tokens"] for one in runs)
    results.append(
      DenoisingResult(
        case,
        tokens / forwards,
        TextQuality.of(judged),
        error_of(judged),
        {batch: seconds[case.name, batch] for batch in batches},
        {batch: speed_up[case.name, batch] for batch in batches},
      )
    )
  return results


def error_of(judged: Sequence[JudgedText]) -> float:
  """Returns the standard error of the bits per byte of texts, a ratio of two sums.

  By linearisation: the deviation over texts of nats - r * bytes, where r is the ratio.
  """
  nats, sizes = (np.array([getattr(x, name) for x in judged], float) for name in ("nats", "bytes"))
  apart = nats - nats.sum() / sizes.sum() * sizes
  return float(np.sqrt(len(judged)) * apart.std(ddof=1) / sizes.sum() / np.log(2))


class CaseRunner:
  """Writes texts with a case, as the library does; no token ends a text."""

  def __init__(self, text: TextModel):
    self._text, self._readable = text, with_readable_layers(text)

  def __call__(self, case: DenoisingCase, prompts: Sequence[Sequence[int]], seed: int) -> Denoised:
    text = self._readable if case.reads_layers else self._text
    sampling = Sampling(temperature=case.temperature)
    _, run = case.denoiser.denoise(text, prompts, sampling=sampling, key=seed, eos=())
    return run


def _check(cases, prompts, batches) -> None:
  if len(prompts) % max(batches):
    raise ValueError(
      f"the number of prompts must be a multiple of the largest batch, {max(batches)}, got "
      f"{len(prompts)}"
    )
  names = {case.name for case in cases}
  for case in cases:
    if case.reference not in names:
      raise ValueError(f"the reference {case.reference!r} of {case.name!r} is none of the cases")
