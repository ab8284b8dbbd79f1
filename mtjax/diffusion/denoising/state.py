"""What a denoising loop is asked to do, and where it is."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from mtjax.diffusion.policy import DecidingPolicy
from mtjax.diffusion.view import View
from mtjax.display.short import short_repr
from mtjax.sampling.logits import Rules


class Job(struct.PyTreeNode):
  """Texts to denoise, one per row: a prompt, then blocks of masks. Only sizes are static."""

  prompt: Int[Array, "B S"]  # the prompt's tokens; other entries mean nothing
  start: Int[Array, " B"]  # length of the prompt: the first position that is generated
  first: Int[Array, " B"]  # where the first block begins: at `start`, or before it
  end: Int[Array, " B"]  # where the last block ends
  steps: Int[Array, " B"]  # passes planned for a block
  eos: Int[Array, " E"]  # a block with one of these is a row's last; -1: none
  rules: Rules
  key: Key[Array, " B"]
  policy: DecidingPolicy
  guidance: PyTree  # a Guidance: which passes logits come from
  constraint: PyTree = None  # a CanvasConstraint; None: no row has one
  # The positions that are generated, where others lie among or after them, whose tokens `prompt`
  # has; None: all from `start` to `end`.
  is_target: Bool[Array, "B S"] | None = None
  # Static: at least the number of generated positions of each row; 0: not known.
  generated: int = struct.field(pytree_node=False, default=0)

  __repr__ = short_repr

  @property
  def targets(self) -> Bool[Array, "B S"]:
    """The positions that are generated."""
    if self.is_target is not None:
      return self.is_target
    place = jnp.arange(self.size)
    return (place >= self.start[:, None]) & (place < self.end[:, None])

  @property
  def stop(self) -> Int[Array, " B"]:
    """The position after which no block is denoised: the last target's, plus 1."""
    if self.is_target is None:
      return self.end
    return self.size - jnp.argmax(self.is_target[:, ::-1], axis=1).astype(self.end.dtype)

  @property
  def response_size(self) -> int:
    """A static size that holds every row's generated positions."""
    return min(self.generated or self.size, self.size)

  @property
  def size(self) -> int:
    """The number of entries of a canvas, S."""
    return self.prompt.shape[1]


class DenoiseState(struct.PyTreeNode):
  """Canvases in progress."""

  token: Int[Array, "B S"]  # masked positions hold the mask
  masked: Bool[Array, "B S"]
  decided_at: Int[Array, "B S"]  # the pass that decided a position last, from 1; 0: prompt, or mask
  block: Int[Array, " B"]  # number of the block in progress
  step: Int[Array, " B"]  # passes made in this block
  total: Int[Array, " B"]  # positions that were masked when this block began
  rate: Array  # float [B]: the masking rate before the next pass (`View.t`)
  passes: Int[Array, " B"]  # passes that a row took part in
  finished: Bool[Array, " B"]
  order: PyTree  # states of the policy's rules
  revise: PyTree
  cache: PyTree  # of the cache policy

  __repr__ = short_repr


class Window(struct.PyTreeNode):
  """The block that each row works on: its positions, and which of them exist."""

  index: Int[Array, "B W"]  # position in the canvas, within its size
  inside: Bool[Array, "B W"]

  def read(self, values: Array) -> Array:
    """Returns values [B, S] at the positions of the window."""
    return jnp.take_along_axis(values, self.index, axis=1)

  def write(self, values: Array, new: Array) -> Array:
    """Returns values [B, S] with `new` [B, W] at the positions that exist."""
    rows = jnp.arange(values.shape[0])[:, None]
    place = jnp.where(self.inside, self.index, values.shape[1])
    return values.at[rows, place].set(new, mode="drop")


def window_of(job: Job, block: Int[Array, " B"], size: int) -> Window:
  """Returns the window of block number `block` of each row."""
  index = job.first[:, None] + block[:, None] * size + jnp.arange(size)
  inside = (index >= job.first[:, None]) & (index < job.end[:, None])
  return Window(jnp.clip(index, 0, job.size - 1), inside)


def has_end(job: Job, window: Window, token: Int[Array, "B W"]) -> Bool[Array, " B"]:
  """Returns true in rows that have an end token at a generated position of the window."""
  generated = window.inside & window.read(job.targets)
  return jnp.any(generated[:, :, None] & (token[:, :, None] == job.eos), axis=(1, 2))


def unplanned_view(
  job: Job,
  window: Window,
  token: Int[Array, "B W"],
  masked: Bool[Array, "B W"],
  passes: Int[Array, " B"],
  logits: Float[Array, "B W V"],
  scored: Float[Array, "B W V"],
) -> View:
  """Returns what a loop without planned passes sees: all masks are open, and rates mean nothing."""
  zero, rate = jnp.zeros_like(passes), jnp.ones(passes.shape, jnp.float32)
  return View(
    logits=logits,
    scored=scored,
    token=token,
    position=window.index,
    masked=masked,
    open=masked,
    decided=jnp.zeros_like(masked),
    total=zero,
    step=zero,
    steps=job.steps,
    t=rate,
    s=rate,
    passes=passes,
    key=job.key,
  )
