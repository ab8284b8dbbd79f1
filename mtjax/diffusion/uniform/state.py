"""What a loop over uniform canvases is asked to do, and where it is."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from mtjax.diffusion.denoising.constrained import CanvasConstraint
from mtjax.diffusion.uniform.rule import UniformRule
from mtjax.display.short import short_repr
from mtjax.sampling.logits import Rules


class UniformJob(struct.PyTreeNode):
  """Texts to denoise, one per row: a prompt, then canvases. Only sizes are static."""

  prompt: Int[Array, "B S"]  # the prompt's tokens; other entries mean nothing
  start: Int[Array, " B"]  # length of the prompt: where the first canvas begins
  end: Int[Array, " B"]  # where the last canvas ends
  steps: Int[Array, " B"]  # passes of a canvas, at most
  eos: Int[Array, " E"]  # a canvas with one of these is a row's last; -1: none
  filters: Rules  # its temperature is that of the rule
  key: Key[Array, " B"]
  rule: UniformRule
  constraint: CanvasConstraint | None = None  # None: no row has one

  __repr__ = short_repr


class UniformState(struct.PyTreeNode):
  """Canvases in progress. The text holds what each would be if it ended now."""

  token: Int[Array, "B S"]
  masked: Bool[Array, "B S"]  # positions that no pass has predicted yet
  decided_at: Int[
    Array, "B S"
  ]  # the pass that changed a token last, from 1; 0: prompt, or none yet
  canvas: Int[Array, "B W"]  # what the next pass sees
  begin: Int[Array, " B"]  # where the canvas in progress begins
  step: Int[Array, " B"]  # passes made over this canvas
  unchanged: Int[Array, " B"]  # the last so many of them had the text of the one before
  signal: Float[Array, "B W D"] | None  # self-conditioning
  pending: Bool[Array, " B"]  # rows whose last canvas is not read yet
  passes: Int[Array, " B"]  # passes over canvases that a row took part in
  reads: Int[Array, " B"]  # passes that read a finished canvas
  finished: Bool[Array, " B"]
  cache: PyTree

  __repr__ = short_repr

  def places(self, begin: Int[Array, " B"] | None = None) -> Int[Array, "B W"]:
    """Returns the positions of the canvases that begin at `begin`; None: of those in progress."""
    begin = self.begin if begin is None else begin
    return begin[:, None] + jnp.arange(self.canvas.shape[1])
