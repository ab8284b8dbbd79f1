"""A model that predicts masked tokens, and how its entries see each other."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.models import Model
from mtjax.types import FOREVER, Frontier, Output


@dataclasses.dataclass(frozen=True)
class MaskedNetwork:
  """A masked model and its conventions.

  mask_id: the id of the mask among the model's inputs; an extra embedding, or, as in LLaDA, an id
    of the vocabulary, which is then never generated.
  shifted: logits of entry i predict position i + 1, as in Dream, and not i, as in LLaDA.
  block_length: entries see their own block of so many positions and all earlier ones, as in
    BD3-LM and SDAR; 0: all entries see each other.
  """

  model: Model
  mask_id: int
  shifted: bool = False
  block_length: int = 0

  def __post_init__(self):
    config = self.model.config
    inputs = config.vocab_size + config.extra_embeddings
    if not 0 <= self.mask_id < inputs:
      raise ValueError(
        f"mask_id must be an input of the model, within 0..{inputs - 1}: got {self.mask_id}"
      )
    if self.block_length < 0:
      raise ValueError(f"block_length must be at least 0, got {self.block_length}")

  @classmethod
  def of(cls, model: Model) -> "MaskedNetwork":
    """Returns a model with the conventions that its config names.

    They are its mask (`mask_id`, or the extra embedding called "mask"), the alignment of its logits
    and the length of its blocks. Raises ValueError for a model that predicts something else than
    masked tokens, and for a masked model without a mask.
    """
    config = model.config
    if config.predicts != "masked":
      raise ValueError(
        f"denoising needs a masked model (predicts 'masked'), and this one predicts "
        f"{config.predicts!r}"
      )
    if config.mask_id is None and "mask" not in config.extra_names:
      raise ValueError(
        "this masked model has no mask: set mask_id to a token of the vocabulary, or give the name "
        f"'mask' to an extra embedding (extra_names is {config.extra_names})"
      )
    shifted = config.alignment == "shifted"
    return cls(model, config.special_id("mask"), shifted, config.block_length)

  def canvas(self, token: Int[Array, "B S"], end: Int[Array, " B"]) -> Frontier:
    """Returns the frontier of whole canvases, each of `end` entries."""
    if not self.block_length:
      return frontier_lib.bidirectional(token, length=end)
    block = jnp.broadcast_to(jnp.arange(token.shape[1]) // self.block_length, token.shape)
    frontier = frontier_lib.block_causal(token, block)
    valid = jnp.arange(token.shape[1]) < end[:, None]
    return frontier.replace(hi=jnp.where(valid[:, None, :], frontier.hi, frontier.lo))

  def with_shadow(
    self, frontier: Frontier, place: Int[Array, "B W"], inside: Bool[Array, "B W"]
  ) -> tuple[Frontier, Int[Array, "B W"]]:
    """Returns all entries, and the entries whose logits predict the block's tokens.

    All entries are those of the canvas, then the shadow entries of a block; `place` says which of
    the canvas are the block's. Each token of the block is predicted from all that the entry which
    predicts it in the canvas sees, but not from the token itself.

    A shadow entry is a mask at a position of the block. It sees all shadow entries, and of the
    canvas what the entry at its position sees, but not that entry itself; no entry of the canvas
    sees it (WINO 2507.18578, section 3.2). Places that are not `inside` are seen by nobody.

    Without shifted logits the shadow entries predict the tokens. In a shifted network the entry
    before a token predicts it, and that entry's own token is to be seen. So a copy of it, which
    nobody sees, comes after the shadow entries. The copy sees what the entry sees, and the shadow
    entries of its block, but not the entry whose token it predicts. The logits of place 0 mean
    nothing there, because the entry before it is not among these.
    """
    # Stamps between that of the block and the next one.
    seen = frontier.hi > frontier.lo
    low = 2 * frontier.lo
    canvas = frontier.replace(stamp=2 * frontier.stamp, lo=low, hi=jnp.where(seen, FOREVER, low))
    masks = self._beside(canvas, place)
    masks = masks.replace(token=jnp.full_like(place, self.mask_id), hi=masks.lo + inside[:, None])
    # Those that predict come last.
    copies = [self._beside(canvas, jnp.maximum(place - 1, 0))] if self.shifted else []
    whole = frontier_lib.concatenate(canvas, masks, *copies)
    hidden = [jnp.full_like(frontier.token, -1), *[place] * (1 + len(copies))]
    rows = whole.size - place.shape[1] + jnp.arange(place.shape[1])
    whole = whole.replace(hidden=jnp.concatenate(hidden, axis=1))
    return whole, jnp.broadcast_to(rows, place.shape)

  def _beside(self, canvas: Frontier, place: Int[Array, "B W"]) -> Frontier:
    """Returns copies of entries that see what these see, one stamp later, and nobody sees."""
    token, position, stamp = (
      jnp.take_along_axis(values, place, axis=1)
      for values in (canvas.token, canvas.position, canvas.stamp[:, 0])
    )
    stamp = stamp[:, None] + 1
    return Frontier(token=token, position=position, stamp=stamp, lo=stamp, hi=stamp)

  def sources(self, index: Int[Array, "B W"]) -> Int[Array, "B W"]:
    """Returns the entries whose logits predict these positions.

    Position 0 of a shifted model has no entry before it: its own one stands in, as in Dream's code.
    """
    return jnp.maximum(index - 1, 0) if self.shifted else index

  def logits(self, output: Output) -> Float[Array, "B R V"]:
    """Returns the logits of a pass without a chance for the mask."""
    return self.allowed(output.logits)

  def allowed(self, logits: Float[Array, "B R V"]) -> Float[Array, "B R V"]:
    """Returns logits without a chance for the mask."""
    return jnp.where(jnp.arange(logits.shape[-1]) == self.mask_id, -jnp.inf, logits)
