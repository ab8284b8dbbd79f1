"""How a canvas of masks becomes text, as typed settings: the group `denoise` of a config."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mtjax.arguments import integer
from mtjax.diffusion import BlockPlan, DecidingPolicy, OrderPolicy, ReviseRule, TransferRule
from mtjax.diffusion.denoising import Denoised, MaskedNetwork
from mtjax.diffusion.denoising.caches import CachePolicy
from mtjax.diffusion.denoising.guidance import Guidance
from mtjax.diffusion.texts import denoise_texts, network_of
from mtjax.display.short import settings_repr
from mtjax.registry.denoising.rules import get_rule
from mtjax.text import Completion, Prompt, TextModel
from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class Denoiser:
  """A method of denoising: blocks and passes, the rules of a pass, and what a pass computes.

  length: the number of tokens to generate, at most.
  block_length: the number of positions of a block; blocks are decided from left to right. 0: the
    model's own blocks, and one block of all positions where the model has none.
  steps: the number of passes that are planned, for all blocks together. Rules that compare
    confidences may need fewer.
  order, transfer, revise, cache, guidance: "NAME" or "NAME:setting=value:..." with the names of
    docs/methods.md ("threshold:threshold=0.8"), or a rule itself (`mtjax.diffusion`).
  filtered_confidence: confidences are those after temperature and filters, as in Dream.

  Raises ValueError for unknown names and settings, with the known ones, for settings out of range,
  and for rules that do not fit together.
  """

  length: int = 64
  block_length: int = 0
  steps: int = 64
  order: str | OrderPolicy = "max_probability"
  transfer: str | TransferRule = "llada_counts"
  revise: str | ReviseRule = "keep"
  cache: str | CachePolicy = "none"
  guidance: str | Guidance = "none"
  filtered_confidence: bool = False

  __repr__ = settings_repr

  def __post_init__(self):
    if integer(self.block_length, "block_length") < 0:
      raise ValueError(f"block_length must be at least 0, got {self.block_length}")
    if not isinstance(self.filtered_confidence, bool):
      raise ValueError(
        f"filtered_confidence must be True or False, got {self.filtered_confidence!r}"
      )
    BlockPlan(self.length, self.block_length or self.length, self.steps)
    _ = self._parts

  @property
  def policy(self) -> DecidingPolicy:
    """The three rules of a pass."""
    return DecidingPolicy(
      order=get_rule("order", self.order),
      transfer=get_rule("transfer", self.transfer),
      revise=get_rule("revise", self.revise),
    )

  @property
  def caching(self) -> CachePolicy:
    """The cache policy: which keys a pass reuses from earlier passes."""
    return get_rule("cache", self.cache)

  @property
  def guiding(self) -> Guidance:
    """What the logits of a pass become."""
    return get_rule("guidance", self.guidance)

  @property
  def exactness(self) -> Exactness:
    """Lossless if the rules, the cache and the guidance are."""
    kept = {part.exactness for part in self._parts}
    return Exactness.LOSSLESS if kept == {Exactness.LOSSLESS} else Exactness.APPROXIMATE

  @property
  def reason(self) -> str:
    """Why it is not exact; empty where it is."""
    return "; ".join(part.reason for part in self._parts if part.reason)

  @property
  def _parts(self):
    return self.policy, self.caching, self.guiding

  def plan(self, network: MaskedNetwork) -> BlockPlan:
    """Returns the blocks and passes for a network. Raises ValueError if they do not divide."""
    block_length = self.block_length or network.block_length or self.length
    return BlockPlan(self.length, block_length, self.steps)

  def denoise(
    self, target: TextModel, prompts: Sequence[Prompt], **settings: Any
  ) -> tuple[list[Completion], Denoised]:
    """Returns what `TextModel.denoise` does; settings are those of `denoise_texts`."""
    network = settings.pop("network", None) or network_of(target)
    return denoise_texts(
      target,
      prompts,
      network=network,
      plan=self.plan(network),
      policy=self.policy,
      cache=self.caching,
      guidance=self.guiding,
      filtered_confidence=self.filtered_confidence,
      **settings,
    )
