"""The network of DiffusionGemma on frontiers: clean entries and entries of canvases, one weight."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from mtjax.cache import KVCache
from mtjax.models.attention import attention
from mtjax.models.diffusion_gemma.config import CanvasLayer, DiffusionGemmaConfig
from mtjax.models.diffusion_gemma.experts import Experts, Router, unit_rms
from mtjax.models.linear import Embedding, Linear, logits_of, of_rows, output_of, with_features
from mtjax.models.transformer import Mlp, Norm, read_before_commit, rotate
from mtjax.types import Frontier, LayerKV, Output


class CanvasAttention(nn.Module):
  """Attention with normed queries, keys and values, and a scale of 1."""

  config: DiffusionGemmaConfig
  layer: CanvasLayer

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    frontier: Frontier,
    place: Int[Array, "B T"],
    cache: KVCache | None,
    cached: LayerKV | None,
  ) -> tuple[Float[Array, "B T D"], LayerKV]:
    c, layer = self.config, self.layer
    B, T, _ = x.shape

    def project(name, heads):
      y = Linear(heads * layer.head_dim, False, x.dtype, name=name)(x)
      return y.reshape(B, T, heads, layer.head_dim)

    q, k = project("q", c.heads), project("k", layer.kv_heads)
    v = project("v", layer.kv_heads) if layer.values == "own" else k
    cos, sin = _angles(layer, frontier.position)
    q = rotate(Norm("rms", c.norm_eps, name="q_norm")(q), cos, sin)
    k = rotate(Norm("rms", c.norm_eps, name="k_norm")(k), cos, sin)
    v = unit_rms(v, c.norm_eps)
    fresh = LayerKV(k.swapaxes(1, 2), v.swapaxes(1, 2))
    out, _ = attention(
      q,
      None if cached is None else cached.k,
      None if cached is None else cached.v,
      None if cache is None else cache.length,
      *fresh,
      frontier.stamp,
      frontier.lo,
      frontier.hi,
      position=place,
      cache_position=None if cache is None else cache.position,
      window=layer.window,
      hidden=frontier.hidden,
      own=frontier.own,
      scale=1.0,
    )
    return Linear(c.dim, False, x.dtype, name="out")(out.reshape(B, T, -1)), fresh


class CanvasBlock(nn.Module):
  """Attention, then an MLP and experts side by side, each with norms before and after."""

  config: DiffusionGemmaConfig
  layer: CanvasLayer

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    frontier: Frontier,
    place: Int[Array, "B T"],
    cache: KVCache | None,
    cached: LayerKV | None,
  ) -> tuple[Float[Array, "B T D"], LayerKV]:
    c = self.config

    def norm(name, y):
      return Norm("rms", c.norm_eps, name=name)(y)

    attend = CanvasAttention(c, self.layer, name="attention")
    h, fresh = attend(norm("attention_norm", x), frontier, place, cache, cached)
    x = x + norm("attention_post_norm", h)
    dense = norm("dense_post_norm", Mlp(c, name="mlp")(norm("mlp_norm", x)))
    weight = Router(c, name="router")(x)
    mixed = Experts(c, name="experts")(norm("experts_norm", x), weight)
    x = x + norm("mlp_post_norm", dense + norm("experts_post_norm", mixed))
    scales = (self.param(f"{of}_scale", nn.initializers.ones, (1,)) for of in ("clean", "canvas"))
    clean, canvas = (scale.astype(x.dtype) for scale in scales)
    if frontier.soft is None:
      return x * clean, fresh
    return x * jnp.where(frontier.soft[..., None], canvas, clean), fresh


class SelfConditioning(nn.Module):
  """Adds what the last pass predicted to the embeddings of a canvas, and norms the sum."""

  config: DiffusionGemmaConfig

  @nn.compact
  def __call__(
    self, x: Float[Array, "B T D"], signal: Float[Array, "B T D"]
  ) -> Float[Array, "B T D"]:
    c = self.config
    h = Norm("rms", c.norm_eps, name="norm")(signal.astype(x.dtype))
    return unit_rms(x + Mlp(c, name="mlp")(h), c.norm_eps)


class DiffusionGemma(nn.Module):
  """The network of `Model.forward` and `Model.segment`, which document its contract.

  A soft entry of the frontier is one of a canvas, and its vector is no embedding but the signal of
  self-conditioning (`canvas_frontier`). Windows reach back from the first entry of the canvas, for
  all of its entries. Soft entries of equal stamps are of one canvas.
  """

  config: DiffusionGemmaConfig
  first: int = 0
  last: int | None = None

  @nn.compact
  def __call__(
    self,
    frontier: Frontier,
    cache: KVCache | None,
    rows: Int[Array, "B R"] | None,
    hidden: Float[Array, "B T D"] | None = None,
  ) -> tuple[Output, Float[Array, "B F D"]]:
    c, dtype = self.config, jnp.dtype(self.config.dtype)
    embedding = Embedding(c.vocab_size, c.dim, dtype, name="embedding")
    place = frontier.position
    if hidden is None:
      x = embedding(frontier.token) * jnp.asarray(c.dim**0.5, dtype)
      x = self._conditioned(x, frontier)
    else:
      x = hidden.astype(dtype)
    if frontier.soft is not None:
      place = jnp.where(frontier.soft, _canvas_begin(frontier), place)
    fresh = []
    for index, layer in enumerate(c.layers[self.first : self.last], self.first):
      cached = None if cache is None else cache.layers[len(fresh)]
      block = CanvasBlock(c, layer, name=f"layer_{index}")
      x, kv = block(x, frontier, place, cache, cached)
      fresh.append(kv)
    features = of_rows(x, with_features(rows))
    hidden = features if self.first + len(fresh) == len(c.layers) else x
    x = Norm("rms", c.norm_eps, name="final_norm")(features)
    if cache is not None:
      fresh = read_before_commit(x, fresh)
    return output_of(x, rows, fresh, lambda x: logits_of(self, embedding, x)), hidden

  def _conditioned(self, x, frontier):
    condition = SelfConditioning(self.config, name="self_conditioning")
    if frontier.vector is None:
      if self.is_initializing():
        condition(x, x)
      return x
    return jnp.where(frontier.soft[..., None], condition(x, frontier.vector), x)


class DiffusionGemmaHead(nn.Module):
  """The last step of `DiffusionGemma` alone: features to logits, with the same parameters."""

  config: DiffusionGemmaConfig

  @nn.compact
  def __call__(self, features: Float[Array, "B R D"]) -> Float[Array, "B R V"]:
    c = self.config
    embedding = Embedding(c.vocab_size, c.dim, jnp.dtype(c.dtype), name="embedding")
    return logits_of(self, embedding, features)


def _canvas_begin(frontier: Frontier) -> Int[Array, "B T"]:
  """Returns the position of the first entry of each soft entry's canvas."""
  stamp, place = frontier.stamp, frontier.position
  together = jnp.all(stamp[:, :, :, None] == stamp[:, :, None, :], axis=1)
  far = jnp.iinfo(place.dtype).max
  return jnp.min(jnp.where(together & frontier.soft[:, None], place[:, None], far), axis=2)


def _angles(
  layer: CanvasLayer, position: Int[Array, "B T"]
) -> tuple[Float[Array, "B T 1 W"], Float[Array, "B T 1 W"]]:
  pairs = layer.head_dim // 2
  frequency = layer.theta ** -(np.arange(pairs) / pairs)
  frequency[int(layer.rotary_share * layer.head_dim // 2) :] = 0
  angle = position[..., None, None].astype(jnp.float32) * jnp.asarray(frequency, jnp.float32)
  return jnp.cos(angle), jnp.sin(angle)
