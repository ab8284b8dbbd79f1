"""A linear map whose weights may be plain, int8, or packed for a CPU, as the parameters are."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mtjax.models.stacking import OfLayer
from mtjax.native.matmul import packed_matmul, stacked_matmul


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
