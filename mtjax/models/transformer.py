"""The transformer: from tokens of a frontier over a committed prefix to logits and fresh keys."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from mtjax.cache import KVCache
from mtjax.models.attention import attention
from mtjax.models.conditioning import conditioned, known_targets, modulations
from mtjax.models.config import Layer, Rope, TransformerConfig
from mtjax.models.linear import (
  Embedding,
  Linear,
  has_packed,
  logits_of,
  of_rows,
  output_of,
  with_features,
)
from mtjax.models.packed_attention import packed_attention
from mtjax.models.stacking import (
  Stacks,
  is_last_period_apart,
  of_layer,
  over_heads,
  stack_name,
)
from mtjax.types import Frontier, LayerKV, Output

ACTIVATIONS = {
  "silu": jax.nn.silu,
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "relu": jax.nn.relu,
}


# Cosines and sines of every entry's position, of each kind of rotary embedding.
Angles = dict[Rope, tuple[Float[Array, "B T 1 W"], Float[Array, "B T 1 W"]]]


class Norm(nn.Module):
  """RMS norm (with weight w or 1 + w) or layer norm, over `axes`, in float32."""

  kind: str
  eps: float
  axes: tuple[int, ...] = (-1,)

  @nn.compact
  def __call__(self, x: Float[Array, "*N"]) -> Float[Array, "*N"]:
    shape = tuple(x.shape[axis] for axis in self.axes)
    start = nn.initializers.zeros if self.kind == "rms_plus_one" else nn.initializers.ones
    weight = self.param("weight", start, shape).astype(jnp.float32)
    y = x.astype(jnp.float32)
    if self.kind == "layer":
      y -= jnp.mean(y, self.axes, keepdims=True)
    y *= jax.lax.rsqrt(jnp.mean(jnp.square(y), self.axes, keepdims=True) + self.eps)
    y *= 1 + weight if self.kind == "rms_plus_one" else weight
    if self.kind == "layer":
      y += self.param("bias", nn.initializers.zeros, shape).astype(jnp.float32)
    return y.astype(x.dtype)


def rotate(
  x: Float[Array, "B T #H D"], cos: Float[Array, "B T 1 W"], sin: Float[Array, "B T 1 W"]
) -> Float[Array, "B T H D"]:
  """Applies rotary embeddings in the half-split convention: dimension d pairs with d + D / 2."""
  one, two = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)
  return rotated.astype(x.dtype)


def projected(
  c: TransformerConfig, layer: Layer, x: Float[Array, "B T M"], angles: Angles
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T G D"], Float[Array, "B T G D"]]:
  """Returns queries, keys and values of normalised inputs; to be called in `Attention`'s scope."""
  dtype, (B, T, _) = x.dtype, x.shape
  width = c.kv_heads * (c.group + 2) * c.head_dim
  qkv = Linear(width, c.qkv_bias, dtype, name="qkv")(x)
  qkv = qkv.reshape(B, T, c.kv_heads, c.group + 2, c.head_dim)
  q, k, v = qkv[..., : c.group, :], qkv[..., c.group, :], qkv[..., c.group + 1, :]
  if c.qk_norm == "head":
    q = Norm(c.norm, c.norm_eps, name="q_norm")(q)
    k = Norm(c.norm, c.norm_eps, name="k_norm")(k)
  elif c.qk_norm == "full":
    q = Norm(c.norm, c.norm_eps, (-3, -2, -1), name="q_norm")(q)
    k = Norm(c.norm, c.norm_eps, (-2, -1), name="k_norm")(k)
  q = q.reshape(B, T, c.heads, c.head_dim)
  if layer.rope is not None:
    q, k = (rotate(y, *angles[layer.rope]) for y in (q, k))
  return q, k, v


class Attention(nn.Module):
  """Grouped-query attention with one fused projection: for each key/value head its G queries, k, v.

  This order keeps a head's whole group on one shard of the model axis.
  """

  config: TransformerConfig
  layer: Layer

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    frontier: Frontier,
    cache: KVCache | None,
    cached: LayerKV | None,
    angles: Angles,
    first_head: Int[Array, ""] | None = None,
    rows: Int[Array, "B R"] | None = None,
  ) -> tuple[Float[Array, "B R D"], LayerKV]:
    c, dtype = self.config, x.dtype
    B, T, _ = x.shape
    q, k, v = projected(c, self.layer, x, angles)
    fresh = LayerKV(k.swapaxes(1, 2), v.swapaxes(1, 2))
    attend = packed_attention if has_packed(self, "qkv") else attention
    out, _ = attend(
      q,
      None if cached is None else cached.k,
      None if cached is None else cached.v,
      None if cache is None else cache.length,
      *fresh,
      frontier.stamp,
      frontier.lo,
      frontier.hi,
      position=frontier.position,
      cache_position=None if cache is None else cache.position,
      window=self.layer.window,
      hidden=frontier.hidden,
      own=frontier.own,
      first_head=None if cached is None else first_head,
      soft_cap=c.attention_soft_cap,
      scale=c.attention_scale,
      implementation=None if c.attention == "best" else c.attention,
    )
    out = of_rows(out.reshape(B, T, c.heads * c.head_dim), rows)
    return Linear(c.dim, c.out_bias, dtype, _residual_init(len(c.layers)), name="out")(out), fresh


@runtime_checkable
class MlpConfig(Protocol):
  """The fields of a config that an MLP reads, whatever the network is."""

  @property
  def dim(self) -> int: ...

  @property
  def mlp_dim(self) -> int: ...

  @property
  def mlp(self) -> str: ...

  @property
  def mlp_bias(self) -> bool: ...

  @property
  def activation(self) -> str: ...

  @property
  def layers(self) -> Sequence[Any]: ...


class Mlp(nn.Module):
  """A gated (act(gate) * up) or plain (act(up)) MLP; gate and up are one projection."""

  config: MlpConfig

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    c, act = self.config, ACTIVATIONS[self.config.activation]
    if c.mlp == "gated":
      both = Linear(2 * c.mlp_dim, c.mlp_bias, x.dtype, name="gate_up")(x)
      gate, up = jnp.split(both, 2, axis=-1)
      h = act(gate) * up
    else:
      h = act(Linear(c.mlp_dim, c.mlp_bias, x.dtype, name="up")(x))
    return Linear(c.dim, c.mlp_bias, x.dtype, _residual_init(len(c.layers)), name="down")(h)


class TransformerBlock(nn.Module):
  """Attention and an MLP, each added to its input; it returns the outputs of `rows` (None: all)."""

  config: TransformerConfig
  layer: Layer

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    frontier: Frontier,
    cache: KVCache | None,
    cached: LayerKV | None,
    angles: Angles,
    first_head: Int[Array, ""] | None = None,
    rows: Int[Array, "B R"] | None = None,
  ) -> tuple[Float[Array, "B R D"], LayerKV]:
    c = self.config
    norm = functools.partial(Norm, c.norm, c.norm_eps)
    before, after = c.norm_placement != "post", c.norm_placement != "pre"
    h = norm(name="attention_norm")(x) if before else x
    attend = Attention(c, self.layer, name="attention")
    h, fresh = attend(h, frontier, cache, cached, angles, first_head, rows)
    x = of_rows(x, rows) + (norm(name="attention_post_norm")(h) if after else h)
    h = norm(name="mlp_norm")(x) if before else x
    h = Mlp(c, name="mlp")(h)
    return x + (norm(name="mlp_post_norm")(h) if after else h), fresh


class ConditionedBlock(nn.Module):
  """A pre-norm block whose branches are modulated by the position that each entry predicts."""

  config: TransformerConfig
  layer: Layer

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    frontier: Frontier,
    cache: KVCache | None,
    cached: LayerKV | None,
    angles: Angles,
    first_head: Int[Array, ""] | None,
    rows: Int[Array, "B R"] | None,
    target: Float[Array, "B T D"],
  ) -> tuple[Float[Array, "B R D"], LayerKV]:
    c = self.config
    norm = functools.partial(Norm, c.norm, c.norm_eps)
    project = Linear(6 * c.dim, True, x.dtype, nn.initializers.zeros, name="modulation")
    of_attention, of_mlp = modulations(project(conditioned(target)))
    h = of_attention.before(norm(name="attention_norm")(x))
    attend = Attention(c, self.layer, name="attention")
    h, fresh = attend(h, frontier, cache, cached, angles, first_head)
    x = x + of_attention.after(h)
    h = of_mlp.before(norm(name="mlp_norm")(x))
    return of_rows(x + of_mlp.after(Mlp(c, name="mlp")(h)), rows), fresh


class Transformer(nn.Module):
  """The network of `Model.forward` and `Model.segment`, which document its contract."""

  config: TransformerConfig
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
    layers = c.layers[self.first : self.last]
    embedding = Embedding(c.vocab_size, c.dim, dtype, name="embedding")
    if hidden is None:
      x = embedded(c, embedding, frontier)
    else:
      x = hidden.astype(dtype)
    angles = {
      rope: angles_of(c, rope, frontier.position)
      for rope in {layer.rope for layer in layers} - {None}
    }
    block: Any = TransformerBlock
    more: list[Array] = []
    if c.target_conditioning != "none":
      vector = Embedding(c.max_position, c.dim, dtype, name="target")
      target = known_targets(vector(jnp.maximum(frontier.target, 0)), frontier.target)
      if c.target_conditioning == "adaptive_norm":
        block, more = ConditionedBlock, [target]
      elif hidden is None:
        x += target
    block = nn.remat(block) if c.remat == "layer" else block
    fresh, chosen, narrow = [], with_features(rows), False
    stacks = Stacks.of(c)
    if stacks.count:
      narrow = is_last_period_apart(c, stacks, frontier.size, chosen)
      last_rows = chosen if narrow else None
      x, fresh = self._scanned(stacks, block, x, frontier, cache, angles, last_rows, more)
    for index, layer in enumerate(layers, self.first):
      if index < stacks.layers:
        continue
      cached = None if cache is None else cache.layers[len(fresh)]
      narrow = index == len(c.layers) - 1
      x, kv = block(c, layer, name=f"layer_{index}")(
        x, frontier, cache, cached, angles, None, chosen if narrow else None, *more
      )
      fresh.append(kv)
    hidden = x
    x = x if narrow else of_rows(x, chosen)
    if self.first + len(layers) == len(c.layers):
      hidden = x
    x = Norm(c.norm, c.norm_eps, name="final_norm")(x)
    if cache is not None:
      fresh = read_before_commit(x, fresh)
    return output_of(x, rows, fresh, lambda x: logits_of(self, embedding, x)), hidden

  def _scanned(self, stacks, block, x, frontier, cache, angles, last_rows, more):
    """Returns what the stacked layers do to `x`, and their fresh keys and values, one per stack.

    With `last_rows`, the outputs are of these entries only, and the last period is computed after
    the scan.
    """
    c = self.config
    params = [self.get_variable("params", stack_name(kind)) for kind in range(stacks.kinds)]

    def period(x, index, rows=None):
      fresh = []
      for kind, layer in enumerate(c.layers[: stacks.kinds]):
        last = rows if kind == stacks.kinds - 1 else None
        own = {"params": of_layer(params[kind], index)}
        cached = None if cache is None else cache.layers[kind]
        module = block(c, layer, parent=None)
        first_head = index * c.kv_heads
        x, kv = module.apply(own, x, frontier, cache, cached, angles, first_head, last, *more)
        fresh.append(kv)
      return x, fresh

    apart = 0 if last_rows is None else 1
    x, fresh = jax.lax.scan(period, x, jnp.arange(stacks.count - apart))
    if apart:
      x, last = period(x, jnp.int32(stacks.count - 1), last_rows)
      fresh = jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), fresh, last)
    return x, [LayerKV(*map(over_heads, kv)) for kv in fresh]


def embedded(
  c: TransformerConfig, embedding: Embedding, frontier: Frontier
) -> Float[Array, "B T D"]:
  """Returns the inputs of the first layer; to be called in a compact method."""
  dtype = embedding.dtype
  x = with_soft_entries(embedding_rows(c, embedding, frontier.token), frontier)
  if c.embedding_scale is not None:
    x *= jnp.asarray(c.embedding_scale, dtype)
  if c.learned_positions is not None:
    x += Embedding(c.learned_positions, c.dim, dtype, name="positions")(frontier.position)
  return x


def embedding_rows(
  c: TransformerConfig, embedding: Embedding, token: Int[Array, "*N"]
) -> Float[Array, "*N D"]:
  """Returns the rows of tokens and of extra embeddings; to be called in a compact method."""
  x = embedding(jnp.minimum(token, c.vocab_size - 1) if c.extra_embeddings else token)
  if not c.extra_embeddings:
    return x
  extra = Embedding(c.extra_embeddings, c.dim, embedding.dtype, name="extra")
  learned = extra(jnp.clip(token - c.vocab_size, 0, c.extra_embeddings - 1))
  return jnp.where((token >= c.vocab_size)[..., None], learned, x)


def angles_of(
  c: TransformerConfig, rope: Rope, position: Int[Array, "B T"]
) -> tuple[Float[Array, "B T 1 W"], Float[Array, "B T 1 W"]]:
  """Returns cosines and sines of positions for one kind of rotary embedding."""
  frequencies = jnp.asarray(rope.inverse_frequencies(c.head_dim))
  angle = position[..., None, None].astype(jnp.float32) * frequencies
  return jnp.cos(angle) * rope.attention_factor, jnp.sin(angle) * rope.attention_factor


def with_soft_entries(x: Float[Array, "B T D"], frontier: Frontier) -> Float[Array, "B T D"]:
  """Returns the table's rows `x`, with the frontier's vectors in their place where it is soft."""
  if frontier.vector is None:
    return x
  return jnp.where(frontier.soft[..., None], frontier.vector.astype(x.dtype), x)


def read_before_commit(x: Float[Array, "B T D"], fresh: Sequence[LayerKV]) -> list[LayerKV]:
  """Returns `fresh` unchanged, but dependent on `x`: a commit then follows every cache read.

  XLA must see this order to commit in place; otherwise it copies the whole cache in every round of
  a loop. A barrier is not enough: the CPU compiler drops it before it decides on copies. The
  condition is never true, but no simplifier may assume this for floats.
  """
  one = x.reshape(-1)[0]
  never = (one != one) & (one == one)
  return [LayerKV(*(jnp.where(never, jnp.zeros_like(y), y) for y in kv)) for kv in fresh]


def _residual_init(depth: int) -> nn.initializers.Initializer:
  """Initialises branch outputs smaller, so that the residual stream keeps its scale (GPT-2)."""
  return nn.initializers.variance_scaling(1.0 / (2 * depth), "fan_in", "truncated_normal")
