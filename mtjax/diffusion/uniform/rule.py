"""The protocol of rules of uniform canvases: what a pass does to every position of a canvas."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.uniform.network import UniformNetwork
from mtjax.diffusion.view import View
from mtjax.types import Exactness


class CanvasAfter(NamedTuple):
  """A canvas after a pass, and the text that it would be if it ended now."""

  canvas: Int[Array, "B W"]
  text: Int[Array, "B W"]


@runtime_checkable
class UniformRule(Protocol):
  """Says what a pass does to a canvas. A pytree whose numbers are one per row.

  In its `View` all positions of a row that is not finished are open, none is decided, and `logits`
  and `scored` are both processed with `temperature`. `step` of `steps` is a pass of this canvas.
  """

  @property
  def exactness(self) -> Exactness:
    """What is kept of the distribution that the network defines."""
    ...

  @property
  def reason(self) -> str:
    """Why it is not exact; empty where it is."""
    ...

  def for_rows(self, batch: int) -> "UniformRule":
    """Returns the rule with an array [B] for every setting."""
    ...

  def mask_share(self) -> Float[Array, ""]:
    """Returns the share of masks of the noise that a canvas begins as."""
    ...

  def temperature_at(self, step: Int[Array, " B"], steps: Int[Array, " B"]) -> Float[Array, " B"]:
    """Returns the temperature of a pass, above 0."""
    ...

  def revise(self, view: View, network: UniformNetwork) -> CanvasAfter:
    """Returns the canvas after a pass."""
    ...

  def done(self, view: View, unchanged: Int[Array, " B"]) -> Bool[Array, " B"]:
    """Returns true in rows whose canvas needs no further pass.

    `unchanged`: the number of passes before this one, in a row, that had the same text.
    """
    ...
