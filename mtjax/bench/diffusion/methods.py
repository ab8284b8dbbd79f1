"""Methods of denoising beside each other: forward passes, time, and the quality of their texts."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtjax.diffusion.denoising import Denoised, denoise
from mtjax.diffusion.texts import network_of, with_readable_layers
from mtjax.evaluate.perplexity import document_nats
from mtjax.registry.denoising.denoiser import Denoiser
from mtjax.rounds.size_buckets import bucket
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

QUALITY = 0.01  # what "the same quality" allows, as a share of both figures


@dataclasses.dataclass(frozen=True)
class DenoisingCase:
  """A method of denoising in a comparison."""

  name: str
  denoiser: Denoiser
  temperature: float
  # The case of one token per pass that it is compared with; its own name: it is that one.
  reference: str


class Quality(NamedTuple):
  """What a judge says of texts, and how varied they are: neither says enough alone.

  A text that repeats itself is probable, and has a low entropy.
  """

  bits_per_token: float  # -log2 p(text | prompt) of the judge, per token
  entropy: float  # of the tokens within a text, in bits; mean over texts


@dataclasses.dataclass(frozen=True)
class DenoisingResult:
  """The figures of a case."""

  case: DenoisingCase
  tokens_per_forward: float
  quality: Quality
  seconds: Mapping[int, float]  # batch -> median seconds per token of a batch
  speed_up: Mapping[int, float]  # batch -> median over rounds of the reference's time over its own

  def keeps(self, reference: "DenoisingResult") -> bool:
    """Returns whether its texts are as good as the reference's: both figures within `QUALITY`."""
    mine, theirs = self.quality, reference.quality
    return (
      mine.bits_per_token <= (1 + QUALITY) * theirs.bits_per_token
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
  judge with another vocabulary, for a number of prompts that is no multiple of the largest batch,
  and for a case whose reference is none of them.
  """
  _check(text, judge, cases, prompts, batches)
  run, most = _Runner(text), max(batches)
  texts = {}
  for number, case in enumerate(cases, 1):
    progress(f"writing texts: {case.name}, {number} of {len(cases)}")
    texts[case.name] = [
      run(case, prompts[first : first + most], seed=first) for first in range(0, len(prompts), most)
    ]
  seconds, speed_up = {}, {}
  for batch in batches:
    taken = {case.name: [] for case in cases}
    for index in range(rounds + 1):
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
    forwards = sum(one.counters["forwards"] for one in runs)
    tokens = sum(one.counters["tokens"] for one in runs)
    results.append(
      DenoisingResult(
        case,
        tokens / forwards,
        quality(judge, prompts, [row for one in runs for row in one.tokens]),
        {batch: seconds[case.name, batch] for batch in batches},
        {batch: speed_up[case.name, batch] for batch in batches},
      )
    )
  return results


def quality(
  judge: TextModel, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> Quality:
  """Returns the quality of texts, each of which continues its prompt."""
  whole = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]
  length = bucket(max(map(len, whole)), maximum=judge.model.config.max_position)

  def nats(documents):
    start = judge.tokenizer.bos_id
    return document_nats(
      judge.model, judge.params, documents, start=start, length=length, context=length // 2
    )

  bits = (nats(whole).sum() - nats(prompts).sum()) / np.log(2)
  return Quality(
    float(bits / sum(map(len, texts))), float(np.mean([token_entropy(text) for text in texts]))
  )


def token_entropy(text: Sequence[int]) -> float:
  """Returns the entropy of a text's tokens, in bits: -sum_v f_v log2 f_v with their frequencies."""
  _, counts = np.unique(np.asarray(text), return_counts=True)
  share = counts / counts.sum()
  return float(-(share * np.log2(share)).sum())


class _Runner:
  """Writes texts with a case."""

  def __init__(self, text: TextModel):
    self._text, self._readable = text, with_readable_layers(text)

  def __call__(self, case: DenoisingCase, prompts: Sequence[Sequence[int]], seed: int) -> Denoised:
    one = case.denoiser
    text = self._readable if one.caching.reads_layers else self._text
    network = network_of(text)
    return denoise(
      network,
      text.params,
      prompts,
      plan=one.plan(network),
      policy=one.policy,
      cache=one.caching,
      guidance=one.guiding,
      filtered_confidence=one.filtered_confidence,
      sampling=Sampling(temperature=case.temperature),
      key=seed,
    )


def _check(text: TextModel, judge: TextModel, cases, prompts, batches) -> None:
  if text.model.config.vocab_size != judge.model.config.vocab_size:
    raise ValueError(
      f"the judge has a vocabulary of {judge.model.config.vocab_size} tokens, and the model one of "
      f"{text.model.config.vocab_size}: they must be the same tokens"
    )
  if len(prompts) % max(batches):
    raise ValueError(
      f"the number of prompts must be a multiple of the largest batch, {max(batches)}, got "
      f"{len(prompts)}"
    )
  names = {case.name for case in cases}
  for case in cases:
    if case.reference not in names:
      raise ValueError(f"the reference {case.reference!r} of {case.name!r} is none of the cases")
