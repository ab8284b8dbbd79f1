"""How uniform canvases become text, as typed settings: the group `denoise` of a config."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mtjax.arguments import integer
from mtjax.diffusion.denoising import Denoised
from mtjax.diffusion.uniform import UniformNetwork, UniformRule
from mtjax.diffusion.uniform.texts import denoise_uniform_texts, uniform_network_of
from mtjax.display.short import settings_repr
from mtjax.registry.denoising.denoiser import OnCanvases
from mtjax.registry.denoising.rules import get_rule
from mtjax.text import Completion, Prompt, TextModel
from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class UniformDenoiser(OnCanvases):
  """A method of uniform canvases: how long they are, how many passes, and what a pass does.

  length: the number of tokens to generate, at most.
  canvas_length: the number of positions of a canvas; canvases follow each other. 0: the model's
    own, and one canvas of `length` positions where the model has none.
  steps: the number of passes over each canvas, at most.
  rule: "NAME" or "NAME:setting=value:..." with the names of docs/methods.md
    ("accept_or_renoise:gamma=0.2"), or a rule itself (`mtjax.diffusion.uniform`).

  Raises ValueError for unknown names and settings, with the known ones, and for settings out of
  range.
  """

  length: int = 256
  canvas_length: int = 0
  steps: int = 48
  rule: str | UniformRule = "accept_or_renoise"

  __repr__ = settings_repr
  spelled = ("rule",)
  own_temperature = True

  def __post_init__(self):
    for name, least in dict(length=1, canvas_length=0, steps=1).items():
      if integer(getattr(self, name), name) < least:
        raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
    _ = self.deciding

  @property
  def deciding(self) -> UniformRule:
    """The rule of a pass."""
    return get_rule("uniform", self.rule)

  @property
  def exactness(self) -> Exactness:
    """That of the rule."""
    return self.deciding.exactness

  @property
  def reason(self) -> str:
    """Why it is not exact; empty where it is."""
    return self.deciding.reason

  @property
  def consists_of(self) -> tuple[str, ...]:
    """The rule, in words with its name."""
    return (f"uniform rule `{self.rule}`",)

  @property
  def needs(self) -> str:
    """The kind of model that it runs on, in words that follow "give"."""
    return "a DiffusionGemma, or a model that configs/train/uniform_diffusion.py trains,"

  def settings_for(self, length: int) -> dict[str, int]:
    """Returns the settings that change with the number of tokens; `steps` are of each canvas."""
    return dict(length=length)

  def network(self, target: TextModel) -> UniformNetwork:
    """Returns the target as a network of canvases. Raises ValueError for one that has none."""
    return uniform_network_of(target, self.canvas_length, otherwise=self.length)

  def check(self, target: TextModel) -> None:
    """Raises ValueError for a target that the method cannot denoise with."""
    self.network(target)

  def denoise(
    self, target: TextModel, prompts: Sequence[Prompt], **settings: Any
  ) -> tuple[list[Completion], Denoised]:
    """Returns what `TextModel.denoise` does; settings are those of `denoise_uniform_texts`."""
    network = settings.pop("network", None) or self.network(target)
    return denoise_uniform_texts(
      target,
      prompts,
      network=network,
      length=self.length,
      steps=self.steps,
      rule=self.deciding,
      **settings,
    )
