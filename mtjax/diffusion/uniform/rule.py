"""The protocol of rules of uniform canvases: what a pass does to every position of a canvas."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.uniform.network import UniformNetwork
from mtjax.diffusion.view import View
from mtjax.types import Exactness


class CanvasAfter(NamedTuple):
  """A canvas after a pass."""

  canvas: Int[Array, "B W"]
  kept: Bool[Array, "B W"]  # positions that hold what the pass sampled; others are noise again


@runtime_checkable
class UniformRule(Protocol):
  """Says what a pass does to a canvas. A pytree whose numbers are one per row.

  In its `View` all positions of a row that is not finished are open, none is decided, and `logits`
  and `scored` are both processed with `temperature`. `step` of `steps` is a pass of this canvas.
  The loop samples a token of every position from `logits`, and `revise` says what becomes of it.
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

  @property
  def greedy_text(self) -> bool:
    """True if a canvas that ends has the most probable tokens as text, and not its own."""
    ...

  def logits(self, view: View) -> Float[Array, "B W N"]:
    """Returns the logits that every position's token is sampled from.

    N is the number of tokens, and one more where a position may become a mask, which is the last.
    """
    ...

  def revise(self, view: View, network: UniformNetwork, sampled: Int[Array, "B W"]) -> CanvasAfter:
    """Returns the canvas after a pass that has sampled these tokens."""
    ...

  def done(self, view: View, unchanged: Int[Array, " B"]) -> Bool[Array, " B"]:
    """Returns true in rows whose canvas needs no further pass.

    `unchanged`: the number of passes before this one, in a row, that had the same text: the one
    that the canvas would be if it ended now.
    """
    ...
