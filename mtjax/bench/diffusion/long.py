"""Long texts by blocks: what the exact cache of finished blocks saves."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from mtjax.bench.workers import same_text
from mtjax.diffusion.denoising import denoise
from mtjax.diffusion.texts import network_of
from mtjax.registry.denoising.denoiser import Denoiser
from mtjax.text import TextModel

NONE, EXACT = "none", "exact"


@dataclasses.dataclass(frozen=True)
class LongResult:
  """Median seconds per token of a long text at batch 1, by cache."""

  seconds: Mapping[str, float]
  speed_up: Mapping[str, float]  # median over rounds, over no cache
  same: Mapping[str, float]  # share of the text that is the one without a cache

  def ratio(self, cache: str) -> float:
    """Returns the speed over no cache."""
    return self.speed_up[cache]


def long_texts(
  text: TextModel,
  prompt: Sequence[int],
  *,
  length: int,
  rounds: int,
  progress: Callable[[str], None] = lambda what: None,
) -> LongResult:
  """Returns the time of a greedy text of `length` tokens, one per pass, with and without a cache.

  Raises ValueError for a model without blocks, and as `denoise` does.
  """
  network, tokens, taken = network_of(text), {}, {NONE: [], EXACT: []}
  for number in range(rounds + 1):
    progress(f"{length} tokens: round {number} of {rounds}" if number else "compiling long texts")
    for cache, seconds in taken.items():
      one = Denoiser(length, 0, length, "sampled_probability", cache=cache)
      began = time.perf_counter()
      done = denoise(
        network,
        text.params,
        [prompt],
        plan=one.plan(network),
        policy=one.policy,
        cache=one.caching,
      )
      if number:
        seconds.append((time.perf_counter() - began) / length)
      tokens[cache] = done.tokens
  ratios = {
    cache: statistics.median(a / b for a, b in zip(taken[NONE], seconds, strict=True))
    for cache, seconds in taken.items()
  }
  return LongResult(
    {cache: statistics.median(seconds) for cache, seconds in taken.items()},
    ratios,
    {cache: same_text(tokens[NONE], tokens[cache]) for cache in taken},
  )
