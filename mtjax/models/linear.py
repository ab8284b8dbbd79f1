"""Linear maps (plain, int8, or packed for a CPU), and the last steps of networks, up to logits."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mtjax.models.config import TransformerConfig
from mtjax.models.stacking import OfLayer
from mtjax.native.matmul import packed_matmul, stacked_matmul
from mtjax.types import LayerKV, Output


class Linear(nn.Module):
  """x @ W (+ b) for x [..., K] and W [K, N].

  The parameter dict holds one of: `kernel` [K, N]; `int8` [K, N] with `scale` [N] (weight-only
  quantisation: W = int8 * scale); `packed` [N / n, K, n] (see mtjax.native), with `scale` if its
  type is int8; both may be one layer's part of a stack (`mtjax.models.stacking`). Only `kernel` is
  created by init and has a gradient with respect to weights. Beside any of them may stand `lora_a`
  [K, R] and `lora_b` [R, N]: their product is added to W (`mtjax.models.lora`).
  """

  features: int
  bias: bool
  dtype: DTypeLike
  # Linen has a method of this name, which is never called on a submodule.
  init: nn.initializers.Initializer = nn.initializers.lecun_normal()  # ty: ignore[incompatible-attribute-override]
  out_dtype: DTypeLike | None = None  # None: dtype

  @nn.compact
  def __call__(self, x: Float[Array, "*N K"]) -> Float[Array, "*N M"]:
    x, out = x.astype(self.dtype), self.out_dtype or self.dtype
    if self.has_variable("params", "packed"):
      packed = self.get_variable("params", "packed")
      scale = None
      if self.has_variable("params", "scale"):
        scale = self.get_variable("params", "scale")
      y = _packed_product(x.astype(jnp.float32), packed, scale, self.features).astype(out)
    elif self.has_variable("params", "int8"):
      kernel = self.get_variable("params", "int8").astype(self.dtype)
      y = jnp.matmul(x, kernel, preferred_element_type=out)
      y = (y * self.get_variable("params", "scale")).astype(out)
    else:
      kernel = self.param("kernel", self.init, (x.shape[-1], self.features)).astype(self.dtype)
      y = jnp.matmul(x, kernel, preferred_element_type=out)
    if self.has_variable("params", "lora_a"):
      a, b = (self.get_variable("params", name) for name in ("lora_a", "lora_b"))
      y += jnp.matmul(x @ a.astype(x.dtype), b.astype(x.dtype), preferred_element_type=out)
    if self.bias:
      y += self.param("bias", nn.initializers.zeros, (self.features,)).astype(out)
    return y


def has_packed(module: nn.Module, name: str) -> bool:
  """Returns whether the weights of this module's `Linear` of that name are packed."""
  return module.has_variable("params", name) and "packed" in module.get_variable("params", name)


def _packed_product(x, packed, scale, n):
  if not isinstance(packed, OfLayer):
    return packed_matmul(x, packed, scale, n=n)
  scales = None if scale is None else scale.stacked
  return stacked_matmul(x, packed.stacked, scales, packed.index, n=n)


class Embedding(nn.Module):
  """A table [V, D], read by id; if the head is tied, its transpose is the head's matrix.

  `table` may be float of any width, or `int8` [V, D] with `scale` [V].
  """

  size: int
  dim: int
  dtype: DTypeLike

  def setup(self) -> None:
    if self.has_variable("params", "int8"):
      self.table = self.get_variable("params", "int8")
      self.scale = self.get_variable("params", "scale")
    else:
      self.table = self.param("table", nn.initializers.normal(0.02), (self.size, self.dim))
      self.scale = None

  def __call__(self, ids: Int[Array, "*N"]) -> Float[Array, "*N D"]:
    rows = self.table[ids].astype(self.dtype)
    return rows if self.scale is None else rows * self.scale[ids][..., None].astype(self.dtype)

  def attend(self, x: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
    y = jax.lax.dot_general(
      x,
      self.table.astype(x.dtype),
      (((x.ndim - 1,), (1,)), ((), ())),
      preferred_element_type=jnp.float32,
    )
    return y if self.scale is None else y * self.scale


def with_features(rows: Int[Array, "B R"] | None) -> Int[Array, "B R"] | None:
  """Returns the entries whose features are computed (`Model.forward`); None: all."""
  return None if rows is None or rows.shape[1] == 0 else rows


def of_rows(x: Float[Array, "B T D"], rows: Int[Array, "B R"] | None) -> Float[Array, "B R D"]:
  """Returns what belongs to these entries; None: all."""
  return x if rows is None else jnp.take_along_axis(x, rows[:, :, None], axis=1)


def output_of(
  features: Float[Array, "B F D"],
  rows: Int[Array, "B R"] | None,
  fresh: Sequence[LayerKV],
  head: Callable[[Float[Array, "B R D"]], Float[Array, "B R V"]],
) -> Output:
  """Returns the output of a network whose features are those of `with_features(rows)`."""
  read = features if rows is None else features[:, : rows.shape[1]]
  return Output(head(read), features, tuple(fresh))


def logits_of(
  module: nn.Module, embedding: Embedding, x: Float[Array, "B R D"]
) -> Float[Array, "B R V"]:
  """Returns logits by the embedding or by the head, whichever the parameters have."""
  c = module.config
  if c.tied and not module.has_variable("params", "head"):
    logits = embedding.attend(x)
  else:
    head = Linear(c.vocab_size, c.head_bias, x.dtype, out_dtype=jnp.float32, name="head")
    logits = head(x)
  if c.logit_soft_cap is not None:
    logits = c.logit_soft_cap * jnp.tanh(logits / c.logit_soft_cap)
  return logits


class Head(nn.Module):
  """The last step of `Transformer` alone: features to logits, with the same parameters."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, features: Float[Array, "B R D"]) -> Float[Array, "B R V"]:
    c = self.config
    embedding = Embedding(c.vocab_size, c.dim, jnp.dtype(c.dtype), name="embedding")
    return logits_of(self, embedding, features)
