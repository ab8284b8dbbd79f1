"""How a canvas of masks becomes text, as typed settings: the group `denoise` of a config."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from mtjax.arguments import integer
from mtjax.diffusion import BlockPlan, DecidingPolicy, OrderPolicy, ReviseRule, TransferRule
from mtjax.diffusion.denoising import Denoised, MaskedNetwork, denoise
from mtjax.diffusion.denoising.caches import CachePolicy, ExactBlocks
from mtjax.diffusion.denoising.guidance import Guidance
from mtjax.diffusion.denoising.machines import BlockMachine
from mtjax.diffusion.extents import Targets, check_targets, plans_of_blanks
from mtjax.diffusion.texts import (
  denoise_texts,
  denoise_texts_by_blocks,
  network_of,
  with_readable_layers,
)
from mtjax.display.short import settings_repr
from mtjax.models import Model
from mtjax.models.stacking import unrolled
from mtjax.registry.denoising.rules import get_rule
from mtjax.text import Completion, Prompt, TextModel
from mtjax.types import Exactness

CONSTRAINED = (
  "the constraint restricts each position of a canvas to what can be completed, however improbable "
  "the completions are"
)


class OnCanvases:
  """Base of methods that decide canvases; a constraint on a canvas is approximate itself.

  They continue prompts; those that fill blanks say so.
  """

  own_temperature: ClassVar[bool] = False  # True: the temperature is a setting of its rule
  spelled: ClassVar[tuple[str, ...]] = ()  # the fields that name a rule, with settings of its own

  @property
  def fills_blanks(self) -> bool:
    """Whether it fills masks among given tokens."""
    return False

  @property
  def exactness(self) -> Exactness:
    """What is kept of the distribution."""
    raise NotImplementedError

  @property
  def reason(self) -> str:
    """Why it is not exact; empty where it is."""
    raise NotImplementedError

  def label(self, is_constrained: bool) -> tuple[Exactness, str]:
    """Returns exactness and reason of a run."""
    if not is_constrained:
      return self.exactness, self.reason
    return Exactness.APPROXIMATE, "; ".join(filter(None, (self.reason, CONSTRAINED)))

  def fill_blanks(
    self, target: TextModel, texts: Sequence[Sequence[int]], is_target: Targets, **settings: Any
  ) -> Denoised:
    """Raises ValueError: such a method continues a prompt."""
    raise ValueError(f"{type(self).__name__} continues prompts, and fills no blanks")


@dataclasses.dataclass(frozen=True)
class Denoiser(OnCanvases):
  """A method of denoising: blocks and passes, the rules of a pass, and what a pass computes.

  length: the number of tokens to generate, at most.
  block_length: the number of positions of a block; blocks are decided from left to right. 0: the
    model's own blocks, and one block of all positions where the model has none.
  steps: the number of passes that are planned, for all blocks together. Rules that compare
    confidences may need fewer.
  order, transfer, revise, cache, guidance: "NAME" or "NAME:setting=value:..." with the names of
    docs/methods.md ("threshold:threshold=0.8"), or a rule itself (`mtjax.diffusion`).
  filtered_confidence: confidences are those after temperature and filters, as in Dream.
  lookahead: a forward pass also computes so many canvases that the next passes are likely to see.
    The text is the same; it needs a cache that keeps nothing ("none").

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
  lookahead: int = 0

  __repr__ = settings_repr
  spelled = ("order", "transfer", "revise", "cache", "guidance")

  def __post_init__(self):
    for name in ("block_length", "lookahead"):
      if integer(getattr(self, name), name) < 0:
        raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
    check_choice(self.filtered_confidence)
    BlockPlan(self.length, self.block_length or self.length, self.steps)
    _ = self._parts

  @property
  def fills_blanks(self) -> bool:
    """Whether it fills masks among given tokens: with rules that move nothing."""
    return not self.policy.revise.moves

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

  @property
  def consists_of(self) -> tuple[str, ...]:
    """The rules, and those of the other settings that are not as usual, in words with names."""
    unusual = (("revise", "keep"), ("cache", "none"), ("guidance", "none"))
    chosen = [name for name, usual in unusual if getattr(self, name) != usual]
    names = ["order", "transfer", *chosen, *(["lookahead"] if self.lookahead else [])]
    return tuple(f"{name} `{getattr(self, name)}`" for name in names)

  @property
  def needs(self) -> str:
    """The kind of model that it runs on, in words that follow "give"."""
    return "a block-causal one" if isinstance(self.caching, ExactBlocks) else "one"

  def check(self, target: TextModel) -> None:
    """Raises ValueError for a target that the method cannot run on.

    Also FileNotFoundError, if the order reads a file that is not there.
    """
    network, policy = network_of(target), self.policy
    self.plan(network)
    # `denoise` takes layers out of their scan for a cache that reads between them.
    readable = Model(unrolled(network.model.config))
    self.caching.check(dataclasses.replace(network, model=readable))
    policy.order.check_vocabulary(network.model.config.vocab_size)
    policy.revise.check_vocabulary(network.model.config.vocab_size)

  def settings_for(self, length: int) -> dict[str, int]:
    """Returns the settings that change with the number of tokens: as many per pass as now."""
    return dict(length=length, steps=max(length * self.steps // self.length, 1))

  def plan(self, network: MaskedNetwork) -> BlockPlan:
    """Returns the blocks and passes for a network. Raises ValueError if they do not divide."""
    block_length = self.block_length or network.block_length or self.length
    return BlockPlan(self.length, block_length, self.steps)

  def denoise(
    self, target: TextModel, prompts: Sequence[Prompt], **settings: Any
  ) -> tuple[list[Completion], Denoised]:
    """Returns what `TextModel.denoise` does; settings are those of `denoise_texts`."""
    if self.caching.reads_layers:
      target = with_readable_layers(target)
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
      lookahead=self.lookahead,
      **settings,
    )

  def fill_blanks(
    self, target: TextModel, texts: Sequence[Sequence[int]], is_target: Targets, **settings: Any
  ) -> Denoised:
    """Returns the tokens of the targets of texts, given their other tokens, and what they cost.

    `is_target`: one list of bool per text (`mtjax.diffusion.denoising.denoise`); settings are
    `sampling` and `key`. For each block at most as many passes are planned as for a block of a text
    by `length` and `steps`, however few targets lie in it. So a blank may have fewer tokens per
    pass than a text, where its blocks hold few targets each. Raises ValueError as `denoise` does.
    """
    check_targets(texts, is_target)
    if self.caching.reads_layers:
      target = with_readable_layers(target)
    network = network_of(target)
    return denoise(
      network,
      target.params,
      texts,
      is_target=is_target,
      plan=plans_of_blanks(
        is_target,
        block_length=self.block_length or network.block_length,
        is_fixed=network.block_length > 0,
        largest=network.model.config.max_position,
        steps=self.steps,
        length=self.length,
      ),
      policy=self.policy,
      cache=self.caching,
      guidance=self.guiding,
      filtered_confidence=self.filtered_confidence,
      lookahead=self.lookahead,
      mesh=target.mesh,
      **settings,
    )


@dataclasses.dataclass(frozen=True)
class BlockDenoiser(OnCanvases):
  """A method of denoising by a machine: which blocks a pass works on, and what it decides there.

  length: the number of tokens to generate, at most; a multiple of the model's blocks.
  machine: "NAME" or "NAME:setting=value:..." with the names of docs/methods.md
    ("pipeline:threshold=0.8"), or a machine itself (`mtjax.diffusion.denoising.machines`).
  filtered_confidence: confidences are those after temperature and filters, as in Dream.

  Raises ValueError for unknown names and settings, with the known ones, and for settings out of
  range.
  """

  length: int = 64
  machine: str | BlockMachine = "pipeline"
  filtered_confidence: bool = False

  __repr__ = settings_repr
  spelled = ("machine",)

  def __post_init__(self):
    BlockPlan(self.length, self.length, 1)
    check_choice(self.filtered_confidence)
    _ = self.making

  @property
  def making(self) -> BlockMachine:
    """The machine."""
    return get_rule("machine", self.machine)

  @property
  def exactness(self) -> Exactness:
    """What the machine keeps."""
    return self.making.exactness

  @property
  def reason(self) -> str:
    """Why it is not exact; empty where it is."""
    return self.making.reason

  @property
  def consists_of(self) -> tuple[str, ...]:
    """The machine, in words with its name."""
    return (f"machine `{self.machine}`",)

  def settings_for(self, length: int) -> dict[str, int]:
    """Returns the settings that change with the number of tokens."""
    return dict(length=length)

  @property
  def needs(self) -> str:
    """The kind of masked model that it runs on, in words that follow "give"."""
    return self.making.needs

  def check(self, target: TextModel) -> None:
    """Raises ValueError for a target that the method cannot run on."""
    network = network_of(target)
    self.making.check(network)
    BlockPlan(self.length, network.block_length, max(1, self.length // network.block_length))

  def denoise(
    self, target: TextModel, prompts: Sequence[Prompt], **settings: Any
  ) -> tuple[list[Completion], Denoised]:
    """Returns what `TextModel.denoise` does; settings are those of `denoise_texts_by_blocks`."""
    return denoise_texts_by_blocks(
      target,
      prompts,
      length=self.length,
      machine=self.making,
      filtered_confidence=self.filtered_confidence,
      **settings,
    )


def check_choice(filtered_confidence: Any) -> None:
  """Raises ValueError for anything but True and False."""
  if not isinstance(filtered_confidence, bool):
    raise ValueError(f"filtered_confidence must be True or False, got {filtered_confidence!r}")
