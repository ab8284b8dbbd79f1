"""Methods of denoising that answer the questions of a task: canvases become answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mtjax.evaluate.answers.methods import REFERENCE, Written, cut
from mtjax.registry.denoising.methods import DENOISERS, AnyDenoiser
from mtjax.registry.denoising.spelled import SpelledDenoiser
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class DenoisingMethod:
  """A method of denoising with its sampling. Its canvas has a length of its own.

  A text that ends before its canvas does is cut at the end token or at a stop string; the passes
  were made for the whole canvas. A setting of `sampling` that is left out is that of the method.
  """

  denoiser: AnyDenoiser
  sampling: Mapping[str, Any]
  same_text = False

  @classmethod
  def of(cls, spelled: SpelledDenoiser) -> "DenoisingMethod":
    """Returns the method that a command line spells."""
    return cls(spelled.denoiser, spelled.sampling)

  @property
  def exactness(self) -> Exactness:
    return self.denoiser.exactness

  def length(self, max_tokens: int) -> int:
    """Returns the number of tokens of an answer: those of the canvas."""
    del max_tokens
    return self.denoiser.length

  def write(
    self,
    model: TextModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Sequence[str],
    max_tokens: Sequence[int],
    temperature: float,
    key: jax.Array,
  ) -> tuple[list[Written], float]:
    """Returns what the method writes, and the seconds that it took, without compilation.

    The sampling is the method's own: `temperature` and `max_tokens` are of plain decoding.
    """
    del temperature, max_tokens
    completions, run = model.denoise(
      prompts, method=self.denoiser, sampling=Sampling(**dict(self.sampling)), key=key
    )
    written = []
    for row, (one, decided) in enumerate(zip(completions, run.decided_at, strict=True)):
      text, finish = cut(one.text, stop, one.finish)
      steps = [decided.count(number) for number in range(1, int(run.passes[row]) + 1)]
      written.append(Written(text, one.tokens, finish, steps, int(run.forwards[row])))
    return written, run.counters["seconds"]


def denoise_only(names: Sequence[str]) -> bool:
  """Returns whether the methods denoise canvases; False: they decode, and `ar` is one of them.

  Raises ValueError for a mixture, as a model is either causal or denoises, and for decoding without
  `ar`.
  """
  others = [name for name in names if name.partition(":")[0] not in DENOISERS]
  if not others:
    return True
  shown = ",".join(names)
  if len(others) < len(names):
    raise ValueError(
      f"--methods={shown}: {others[0]} decodes with a causal model, and others denoise canvases "
      "with a model of another kind: give one kind at a time"
    )
  if REFERENCE not in names:
    raise ValueError(
      f"--methods={shown} lacks {REFERENCE}, whose text the others are compared with: give "
      f"--methods={REFERENCE},{shown}"
    )
  return False
