"""DiffusionGemma's two modes: clean text is read causally, and canvases see all of it."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.models import DiffusionGemmaConfig, Model, Params, canvas_frontier, signal_of


@dataclasses.dataclass(frozen=True)
class CausalEncoder:
  """A DiffusionGemma: clean tokens are committed once, canvases never are.

  The encoder is causal, so its keys are exact: they are those of the whole text read at once. A
  pass over a canvas computes the canvas alone. A finished canvas is read again, as clean text.
  Canvases are conditioned on what the pass before predicted (self-conditioning, 2208.04202).
  """

  model: Model

  def __post_init__(self):
    config = self.model.config
    if not isinstance(config, DiffusionGemmaConfig):
      raise ValueError(
        "a causal encoder of canvases needs a DiffusionGemma (predicts 'canvas'), and this model "
        f"predicts {config.predicts!r}"
      )

  mask_id = None
  commits = True

  @property
  def canvas_length(self) -> int:
    """The number of positions of a canvas: that of the model's config."""
    return self._config.canvas_length

  def start(self, params: Params, prompt: Int[Array, "B S"], length: Int[Array, " B"]) -> KVCache:
    batch, size = prompt.shape
    empty = self.model.allocate(batch, size)
    return self._commit(params, empty, prompt, jnp.zeros_like(length), length, over=None)

  def read(
    self,
    params: Params,
    cache: KVCache,
    token: Int[Array, "B W"],
    begin: Int[Array, " B"],
    count: Int[Array, " B"],
  ) -> KVCache:
    return self._commit(params, cache, token, begin, count, over=cache)

  def logits(
    self,
    params: Params,
    cache: KVCache,
    text: Int[Array, "B S"],
    canvas: Int[Array, "B W"],
    begin: Int[Array, " B"],
    signal: Float[Array, "B W D"] | None,
  ) -> Float[Array, "B W V"]:
    frontier = canvas_frontier(canvas, start=begin, signal=signal, config=self._config)
    return self.model.forward(params, frontier, cache).logits

  def signal(self, params: Params, logits: Float[Array, "B W V"]) -> Float[Array, "B W D"]:
    return signal_of(self._config, params, logits)

  def no_signal(self, batch: int) -> Float[Array, "B W D"]:
    config = self._config
    return jnp.zeros((batch, self.canvas_length, config.dim), jnp.dtype(config.dtype))

  @property
  def _config(self) -> DiffusionGemmaConfig:
    assert isinstance(self.model.config, DiffusionGemmaConfig)  # `__post_init__` refuses others
    return self.model.config

  def _commit(self, params, cache: KVCache, token, begin, count, over: KVCache | None) -> KVCache:
    frontier = frontier_lib.causal(token, start=begin, length=count)
    none = jnp.zeros((token.shape[0], 0), jnp.int32)
    output = self.model.forward(params, frontier, over, none)
    path = jnp.broadcast_to(jnp.arange(token.shape[1]), token.shape)
    return cache.commit(output.kv, frontier.position, path, count)
