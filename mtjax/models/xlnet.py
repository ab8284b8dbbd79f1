"""XLNet (1906.08237) on frontiers: content and query entries in one list, with shared weights.

A position has two parts here, the place in the text and the segment (the number of the text), so
that frontiers, canvases and caches hold segments as they hold positions.
"""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from kernels_pallas.frontier_attention import visible
from mtjax.cache import KVCache
from mtjax.display.short import settings_repr
from mtjax.models.config import check_choices, special_id
from mtjax.models.linear import Embedding, Linear, logits_of, of_rows, output_of, with_features
from mtjax.models.transformer import Mlp, Norm, read_before_commit, with_soft_entries
from mtjax.types import Frontier, LayerKV, Output

_PLACES = 1 << 20


@dataclasses.dataclass(frozen=True)
class XLNetConfig:
  """An XLNet: attention over relative positions and segments, norms after residuals.

  `max_position` limits texts, not the network: relative positions have no table.
  """

  vocab_size: int
  dim: int
  heads: int
  head_dim: int
  mlp_dim: int
  depth: int
  norm_eps: float = 1e-12
  activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "gelu"
  max_position: int = 1024
  tied: bool = True
  dtype: Literal["float32", "bfloat16", "float16"] = "float32"
  remat: Literal["none", "layer"] = "none"  # recompute a layer's activations in the backward pass

  kind: ClassVar[str] = "xlnet"
  segments: ClassVar[int] = 2**31 // _PLACES  # as many as fit into an int32 position

  # Settings that are fixed here and vary in other networks. The one extra embedding is the query's.
  extra_embeddings: ClassVar[int] = 1
  extra_names: ClassVar[tuple[str, ...]] = ("query",)
  predicts: ClassVar[str] = "any_subset"
  mask_id: ClassVar[None] = None
  alignment: ClassVar[str] = "aligned"
  block_length: ClassVar[int] = 0
  learned_positions: ClassVar[None] = None
  head_bias: ClassVar[bool] = False
  target_conditioning: ClassVar[str] = "none"
  logit_soft_cap: ClassVar[None] = None
  exits: ClassVar[tuple] = ()
  norm: ClassVar[str] = "layer"
  mlp: ClassVar[str] = "plain"
  mlp_bias: ClassVar[bool] = True

  __repr__ = settings_repr

  def __post_init__(self):
    check_choices(self)
    for name in ("vocab_size", "dim", "heads", "head_dim", "mlp_dim", "depth", "max_position"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
    if self.max_position > _PLACES:
      raise ValueError(f"max_position must be at most {_PLACES}, got {self.max_position}")
    if self.dim % 2:
      raise ValueError(
        f"relative positions are pairs of sine and cosine: dim must be even, got {self.dim}"
      )

  @property
  def kv_heads(self) -> int:
    return self.heads

  @property
  def layers(self) -> tuple[int, ...]:
    return tuple(range(self.depth))

  def special_id(self, name: str) -> int:
    """Returns the id of the extra embedding of that name. Raises ValueError if there is none."""
    return special_id(self, name)


def position_of(place: ArrayLike, segment: ArrayLike) -> Int[Array, "..."]:
  """Returns the position of a place in the text, from 0, and a segment, from 0.

  A place alone is a position in segment 0. Only the equality of segments matters (they are
  transformers' token_type_ids).
  """
  return jnp.asarray(place, jnp.int32) + jnp.asarray(segment, jnp.int32) * _PLACES


def sinusoids(
  position: Int[Array, "B T"], dim: int
) -> tuple[Float[Array, "B T W"], Float[Array, "B T W"]]:
  """Returns sine and cosine of position * 10000^(-2k / dim), k < W = dim / 2, in float32."""
  frequency = jnp.asarray(10_000.0 ** -(np.arange(0, dim, 2) / dim), jnp.float32)
  angle = position[..., None].astype(jnp.float32) * frequency
  return jnp.sin(angle), jnp.cos(angle)


class RelativeAttention(nn.Module):
  """Attention to content, relative position and relative segment (1906.08237, sec. 2.5).

  score(i, j) = ((q_i + u) . k_j + (q_i + v) . W R(pos_i - pos_j) + (q_i + b) . s_ij) /
  sqrt(head_dim), R = [sin; cos], s_ij one of two vectors: for a key of the same segment, or of
  another. Sine and cosine of a difference are sums of products, so the second term is the product
  of a vector of the query and its position with one of the key's position: this works for all
  positions, without a table. For the third term, the difference of the two vectors is enough: the
  rest is the same for all keys, and a text of one segment (or none, as transformers allows) has no
  such term. The output of an entry that sees nothing is 0. (In transformers it sees everything.)
  """

  config: XLNetConfig

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    sees: Bool[Array, "B T S"],
    position: Int[Array, "B T"],
    cache: KVCache | None,
    cached: LayerKV | None,
  ) -> tuple[Float[Array, "B T D"], LayerKV]:
    c = self.config
    B, T, _ = x.shape
    width = c.heads * c.head_dim
    normal = nn.initializers.normal(0.02)
    qkv = Linear(3 * width, False, x.dtype, name="qkv")(x).reshape(B, T, 3, c.heads, c.head_dim)
    q, k, v = (qkv[:, :, i].swapaxes(1, 2) for i in range(3))
    fresh = LayerKV(k, v)
    shape = (c.heads, c.head_dim)
    content_bias = self.param("content_bias", normal, shape).astype(x.dtype)
    position_bias = self.param("position_bias", normal, shape).astype(x.dtype)
    relative = self.param("relative", normal, (c.dim, width)).astype(x.dtype)
    segment_bias = self.param("segment_bias", normal, shape).astype(x.dtype)
    same, other = self.param("segments", normal, (2, width)).astype(x.dtype).reshape(2, *shape)
    at = position
    if cache is not None:
      there = (jnp.arange(cache.capacity) < cache.length[:, None])[:, None, :, None]
      k = jnp.concatenate([jnp.where(there, cached.k, 0).astype(k.dtype), k], axis=2)
      v = jnp.concatenate([jnp.where(there, cached.v, 0).astype(v.dtype), v], axis=2)
      at = jnp.concatenate([jnp.where(there[:, 0, :, 0], cache.position, 0), at], axis=1)
    scores = jnp.einsum("bhtd,bhsd->bhts", q + content_bias[:, None], k)
    weight = relative.reshape(c.dim, c.heads, c.head_dim)
    projected = jnp.einsum("bhtd,whd->bhtw", q + position_bias[:, None], weight)
    of_sine, of_cosine = jnp.split(projected.astype(jnp.float32), 2, axis=-1)
    sine, cosine = (y[:, None] for y in sinusoids(position % _PLACES, c.dim))
    rotated = jnp.concatenate(
      [of_cosine * sine - of_sine * cosine, of_sine * sine + of_cosine * cosine], axis=-1
    )
    of_key = jnp.concatenate(sinusoids(at % _PLACES, c.dim), axis=-1)
    scores += jnp.einsum("bhtw,bsw->bhts", rotated, of_key)
    apart = (position[:, :, None] // _PLACES != at[:, None] // _PLACES)[:, None]
    to_other = jnp.einsum("bhtd,hd->bht", q + segment_bias[:, None], other - same)
    scores += jnp.where(apart, to_other[..., None], 0)
    scores = jnp.where(sees[:, None], scores.astype(jnp.float32) * c.head_dim**-0.5, -jnp.inf)
    some = jnp.any(sees, axis=-1)[:, None, :, None]
    weights = jnp.where(some, jax.nn.softmax(jnp.where(some, scores, 0), axis=-1), 0)
    out = jnp.einsum("bhts,bhsd->bthd", weights.astype(v.dtype), v).reshape(B, T, width)
    return Linear(c.dim, False, x.dtype, name="out")(out), fresh


class XLNetBlock(nn.Module):
  config: XLNetConfig

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    sees: Bool[Array, "B T S"],
    position: Int[Array, "B T"],
    cache: KVCache | None,
    cached: LayerKV | None,
  ) -> tuple[Float[Array, "B T D"], LayerKV]:
    c = self.config
    h, fresh = RelativeAttention(c, name="attention")(x, sees, position, cache, cached)
    x = Norm(c.norm, c.norm_eps, name="attention_norm")(x + h)
    h = Mlp(c, name="mlp")(x)
    return Norm(c.norm, c.norm_eps, name="mlp_norm")(x + h), fresh


class XLNet(nn.Module):
  """The network of `Model.forward` for an XLNetConfig, which documents its contract."""

  config: XLNetConfig
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
    if hidden is None:
      x = with_soft_entries(self._embed(embedding, frontier.token), frontier)
    else:
      x = hidden.astype(dtype)
    sees = _sees(frontier, cache)
    block = nn.remat(XLNetBlock) if c.remat == "layer" else XLNetBlock
    fresh = []
    for index in c.layers[self.first : self.last]:
      cached = None if cache is None else cache.layers[index - self.first]
      x, kv = block(c, name=f"layer_{index}")(x, sees, frontier.position, cache, cached)
      fresh.append(kv)
    if cache is not None:
      fresh = read_before_commit(x, fresh)
    features = of_rows(x, with_features(rows))
    is_last = self.first + len(fresh) == len(c.layers)
    output = output_of(features, rows, fresh, lambda x: _logits(self, embedding, x))
    return output, features if is_last else x

  def _embed(self, embedding, token):
    c = self.config
    query = Embedding(1, c.dim, embedding.dtype, name="extra")(jnp.zeros_like(token))
    known = embedding(jnp.minimum(token, c.vocab_size - 1))
    return jnp.where((token >= c.vocab_size)[..., None], query, known)


class XLNetHead(nn.Module):
  """The last step of `XLNet` alone: features to logits, with the same parameters."""

  config: XLNetConfig

  @nn.compact
  def __call__(self, features: Float[Array, "B R D"]) -> Float[Array, "B R V"]:
    c = self.config
    embedding = Embedding(c.vocab_size, c.dim, jnp.dtype(c.dtype), name="embedding")
    return _logits(self, embedding, features)


def _logits(module, embedding, x):
  bias = module.param("logit_bias", nn.initializers.zeros, (module.config.vocab_size,))
  return logits_of(module, embedding, x) + bias.astype(jnp.float32)


def _sees(frontier: Frontier, cache: KVCache | None) -> Bool[Array, "B T S"]:
  """Returns which keys an entry sees: first those of the cache, then those of the frontier."""
  fresh = visible(
    frontier.stamp, frontier.lo, frontier.hi, hidden=frontier.hidden, own=frontier.own
  )
  if cache is None:
    return fresh
  there = jnp.arange(cache.capacity) < cache.length[:, None]
  there = jnp.broadcast_to(there[:, None], (*fresh.shape[:2], cache.capacity))
  return jnp.concatenate([there, fresh], axis=2)
