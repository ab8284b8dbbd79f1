"""Adaptive parallel decoding as typed settings: the group `denoise` of its config."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from mtjax.diffusion import BlockPlan
from mtjax.diffusion.denoising import Denoised
from mtjax.diffusion.denoising.adaptive import AdaptiveParallel
from mtjax.diffusion.texts import denoise_texts_adaptively, network_of
from mtjax.display.short import settings_repr
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.registry.denoising.denoiser import OnCanvases
from mtjax.text import Completion, Prompt, TextModel
from mtjax.types import Exactness

NO_CONSTRAINT = (
  "adaptive parallel decoding takes no constraint: leave config.constraint out, or use another "
  "method of denoising, such as llada"
)


@dataclasses.dataclass(frozen=True)
class AdaptiveDenoiser(OnCanvases):
  """APD: a masked model drafts from left to right, and a causal one says how many tokens to take.

  length: the number of tokens to generate, at most.
  mixture: the share of the masked model in the logits that accept: 1 takes all drafts, and 0 those
    that the causal model would choose. One number, or one per row.
  parallel: the number of positions that a pass drafts, at most.
  causal: a causal model of the same tokenizer, as `mtjax.load` names it, or itself.

  Raises ValueError for settings out of range.
  """

  length: int = 64
  mixture: Any = 0.7
  parallel: int = 32
  causal: str | TextModel = "target"

  __repr__ = settings_repr

  def __post_init__(self):
    BlockPlan(self.length, self.length, 1)
    _ = self.rule

  @property
  def rule(self) -> AdaptiveParallel:
    """The rule of acceptance."""
    return AdaptiveParallel(mixture=self.mixture, parallel=self.parallel)

  @property
  def exactness(self) -> Exactness:
    """Approximate."""
    return self.rule.exactness

  @property
  def reason(self) -> str:
    """Why it is not exact."""
    return self.rule.reason

  def label(self, is_constrained: bool) -> tuple[Exactness, str]:
    """Returns exactness and reason of a run. Raises ValueError for one with a constraint."""
    if is_constrained:
      raise ValueError(NO_CONSTRAINT)
    return self.exactness, self.reason

  @property
  def consists_of(self) -> tuple[str, ...]:
    """The settings, in words."""
    return (f"mixture `{self.mixture}`", f"parallel `{self.parallel}`", f"causal `{self.causal}`")

  @property
  def needs(self) -> str:
    """The kind of masked model that it runs on, in words that follow "give"."""
    return "one"

  def settings_for(self, length: int) -> dict[str, int]:
    """Returns the settings that change with the number of tokens."""
    return dict(length=length)

  def check(self, target: TextModel) -> None:
    """Raises ValueError for a target that the method cannot run on."""
    BlockPlan(self.length, network_of(target).block_length or 1, self.length)

  def denoise(
    self, target: TextModel, prompts: Sequence[Prompt], **settings: Any
  ) -> tuple[list[Completion], Denoised]:
    """Returns what `TextModel.denoise` does; settings are those of `denoise_texts_adaptively`."""
    if settings.pop("constraint", None) is not None:
      raise ValueError(NO_CONSTRAINT)
    causal = (
      self.causal if isinstance(self.causal, TextModel) else _loaded(self.causal, target.mesh)
    )
    return denoise_texts_adaptively(
      target, prompts, causal=causal, length=self.length, rule=self.rule, **settings
    )


@functools.lru_cache(maxsize=2)
def _loaded(name: str, mesh: Mesh | None) -> TextModel:
  """Returns a model by name, laid out for decoding, read once for all texts that it helps."""
  return for_decoding(load_pretrained(name, mesh=mesh))
