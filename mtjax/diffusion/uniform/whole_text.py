"""A bidirectional model that was trained with uniform noise: a pass computes the whole text."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.arguments import integer
from mtjax.models import Model, Params


@dataclasses.dataclass(frozen=True)
class WholeText:
  """A model of the objective `uniform_diffusion`: canvases stand after clean text, without a cache.

  canvas_length: the number of positions of a canvas, which every pass predicts.
  mask_id: the id of the mask, for noise that has masks (GIDD); None: uniform tokens alone (UDLM).

  Training adds noise to all tokens of a document at one time; a prompt and finished canvases have
  none here, and the model is not told so.
  """

  model: Model
  canvas_length: int
  mask_id: int | None = None

  def __post_init__(self):
    config = self.model.config
    if config.predicts != "masked" or config.alignment != "aligned" or config.block_length:
      raise ValueError(
        "uniform canvases without a causal encoder need a bidirectional model whose entries "
        "predict themselves (predicts 'masked', aligned, without blocks), and this one predicts "
        f"{config.predicts!r}, {config.alignment}, with blocks of {config.block_length}"
      )
    if integer(self.canvas_length, "canvas_length") < 1:
      raise ValueError(f"canvas_length must be at least 1, got {self.canvas_length}")
    inputs = config.vocab_size + config.extra_embeddings
    if self.mask_id is not None and not config.vocab_size <= self.mask_id < inputs:
      raise ValueError(
        "the mask of a model with uniform noise is an extra embedding, no token of the vocabulary: "
        f"mask_id must be within {config.vocab_size}..{inputs - 1}, got {self.mask_id}"
      )

  commits = False

  @classmethod
  def of(cls, model: Model, canvas_length: int) -> "WholeText":
    """Returns a model, with the mask that its config names if its noise has masks."""
    config = model.config
    mask = config.special_id("mask") if config.noise == "hybrid" else None
    return cls(model, canvas_length, mask)

  def start(self, params: Params, prompt: Int[Array, "B S"], length: Int[Array, " B"]) -> None:
    return None

  def read(
    self,
    params: Params,
    cache: None,
    token: Int[Array, "B W"],
    begin: Int[Array, " B"],
    count: Int[Array, " B"],
  ) -> None:
    return None

  def logits(
    self,
    params: Params,
    cache: None,
    text: Int[Array, "B S"],
    canvas: Int[Array, "B W"],
    begin: Int[Array, " B"],
    signal: Float[Array, "B W D"] | None,
  ) -> Float[Array, "B W V"]:
    index = begin[:, None] + jnp.arange(self.canvas_length)
    whole = jnp.put_along_axis(text, index, canvas, axis=1, inplace=False)
    frontier = frontier_lib.bidirectional(whole, length=begin + self.canvas_length)
    return self.model.forward(params, frontier, None, index).logits

  def signal(self, params: Params, logits: Float[Array, "B W V"]) -> None:
    return None

  def no_signal(self, batch: int) -> None:
    return None
