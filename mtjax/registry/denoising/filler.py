"""How an any-subset model continues a prompt, as typed settings: `config.denoise` of "set"."""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

from mtjax.anysubset import FillMethod
from mtjax.anysubset.orders import ORDERS, Order
from mtjax.arguments import integer
from mtjax.diffusion.denoising import Denoised
from mtjax.diffusion.extents import Targets
from mtjax.diffusion.filled_texts import Ranks, check_fills, fill_targets, fill_texts
from mtjax.display.short import settings_repr
from mtjax.models import Config, TransformerConfig
from mtjax.registry.drafters import check_settings
from mtjax.registry.fill_rows import get_fill_entry
from mtjax.registry.spelling import split_spelling
from mtjax.text import Completion, Prompt, TextModel
from mtjax.types import Exactness

# The orders that models of these rows were trained for.
_OWN = {"two_stream": "lattice", "set_diffusion": "staggered", "eso": "eso"}
_REASON = (
  "the tokens of one pass are sampled independently of each other, in an order that is not fixed "
  "before"
)


@dataclasses.dataclass(frozen=True)
class CanvasFiller:
  """A method of continuing prompts with masks that an any-subset model fills, in any order.

  length: the number of tokens to generate, at most.
  fill: a fill method, "NAME" or "NAME:setting=value:..." with the names of docs/methods.md
    ("window:threshold=0.8", "self:window=8"), or a `FillMethod` itself.
  order: for methods that fill in an order fixed before, the name of one of
    `mtjax.anysubset.orders.ORDERS` with its settings ("staggered:set_size=4"); "": the order that
    the model was trained for. Methods that decide the order themselves take none.

  Raises ValueError for unknown names and settings, with the known ones, for settings out of range,
  and for an order beside a method that decides it.
  """

  length: int = 64
  fill: str | FillMethod = "window:size=4:threshold=0.9"
  order: str = ""

  __repr__ = settings_repr
  fills_blanks = True
  spelled = ("fill",)
  own_temperature = False

  def __post_init__(self):
    if integer(self.length, "length") < 1:
      raise ValueError(f"length must be at least 1, got {self.length}")
    if not isinstance(self.order, str):
      raise ValueError(f"order must be a name, got {self.order!r}")
    if self.filling.decides_order and self.order:
      raise ValueError(f"the fill method {self.fill!r} decides the order itself: leave order empty")
    if self.order:
      _get_order(self.order)

  @property
  def filling(self) -> FillMethod:
    """The fill method."""
    if not isinstance(self.fill, str):
      return self.fill
    name, settings = split_spelling(self.fill)
    return get_fill_entry(name)(**settings)

  @property
  def exactness(self) -> Exactness:
    """That of the fill method: lossless means the joint distribution in the order."""
    return self.filling.exactness

  @property
  def reason(self) -> str:
    """Why it is not exact; empty where it is."""
    return "" if self.exactness is Exactness.LOSSLESS else _REASON

  def label(self, is_constrained: bool) -> tuple[Exactness, str]:
    """Returns exactness and reason of a run; constraints keep the product of conditionals.

    Those are then restricted to what can be completed (`mtjax.anysubset.filling.constrained`).
    """
    del is_constrained
    return self.exactness, self.reason

  @property
  def consists_of(self) -> tuple[str, ...]:
    """The fill method and the order, in words with names."""
    return (f"fill `{self.fill}`", *([f"order `{self.order}`"] if self.order else []))

  @property
  def needs(self) -> str:
    """The kind of model that it runs on, in words that follow "give"."""
    return "an any-subset one"

  def check(self, target: TextModel) -> None:
    """Raises ValueError for a target that cannot fill."""
    check_fills(target)

  def settings_for(self, length: int) -> dict[str, int]:
    """Returns the settings that change with the number of tokens."""
    return dict(length=length)

  def ranks(self, config: Config) -> Ranks | None:
    """Returns what makes the order for a model; None: the method decides it."""
    if self.filling.decides_order:
      return None
    rows = config.any_subset_rows if isinstance(config, TransformerConfig) else "two_stream"
    order, settings = _get_order(self.order or _OWN[rows])
    return lambda canvas, key: order.ranks(canvas, key, **settings)

  def denoise(
    self, target: TextModel, prompts: Sequence[Prompt], **settings: Any
  ) -> tuple[list[Completion], Denoised]:
    """Returns what `TextModel.denoise` does; settings are those of `fill_texts`."""
    return fill_texts(
      target,
      prompts,
      length=self.length,
      method=self.filling,
      ranks=self.ranks(target.model.config),
      **settings,
    )

  def fill_blanks(
    self, target: TextModel, texts: Sequence[Sequence[int]], is_target: Targets, **settings: Any
  ) -> Denoised:
    """Returns what `fill_targets` does; settings are `sampling` and `key`."""
    ranks = self.ranks(target.model.config)
    return fill_targets(target, texts, is_target, method=self.filling, ranks=ranks, **settings)


def _get_order(spelling: str) -> tuple[Order, dict[str, Any]]:
  name, settings = split_spelling(spelling)
  if name not in ORDERS:
    raise ValueError(f"order {name!r} is not one of: {', '.join(ORDERS)}")
  order = ORDERS[name]
  known = list(inspect.signature(order.ranks).parameters)[2:]
  check_settings(f"order, {name},", settings, known)
  return order, settings
