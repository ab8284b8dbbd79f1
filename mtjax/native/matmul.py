"""The product x W in float32 for packed weights: native code if it works, else XLA."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mtjax.native import build
from mtjax.native.packed_weights import check_packed, pack_weights, quantize_int8, unpack_weights

__all__ = ["pack_weights", "packed_matmul", "quantize_int8", "support", "unpack_weights"]

IMPLEMENTATIONS = ("native", "xla")


def support() -> str | None:
  """Returns None if the native code can be used here, and else the reason."""
  backend = jax.default_backend()
  if backend != "cpu":
    return f"the default backend is {backend}, the native code is for cpu"
  return build.unavailable()


def packed_matmul(
  x: Float[Array, "*M K"],
  packed: Num[Array, "P K W"],
  scale: Float[Array, " N"] | None = None,
  *,
  n: int,
  implementation: str | None = None,
) -> Float[Array, "*M N"]:
  """Returns x @ unpack_weights(packed, n) (* scale), all in float32.

  bfloat16 and int8 weights count as the float32 numbers that they represent; `scale` [n] belongs to
  int8 weights and to no others. Both implementations have the rounding error of a float32 dot
  product of length K; with "native", the bits of a row also do not depend on the other rows, their
  number and the threads. NaN and infinities propagate.

  implementation: None means "native" if `support()` is None, else "xla"; a name never falls back
  (RuntimeError with the reason). It works under jit, loops and vmap, but has no gradient: keep the
  kernel unpacked for training.
  """
  _check(x, packed, scale, n, implementation)
  reason = support() if implementation != "xla" else None
  if reason is not None and implementation == "native":
    raise RuntimeError(f"implementation='native' cannot run: {reason}")
  chosen = implementation or ("xla" if reason else "native")
  if scale is None:
    scale = jnp.zeros((0,), jnp.float32)
  y_MxN = _product(chosen, n, x.reshape(-1, x.shape[-1]), packed, scale)
  return y_MxN.reshape(*x.shape[:-1], n)


def _check(x, packed, scale, n, implementation) -> None:
  check_packed(packed, n)
  if implementation is not None and implementation not in IMPLEMENTATIONS:
    raise ValueError(f"implementation must be None or in {IMPLEMENTATIONS}, got {implementation!r}")
  if x.dtype != jnp.float32:
    raise ValueError(f"x must be float32, got {x.dtype}")
  if x.ndim < 1 or x.shape[-1] != packed.shape[1]:
    raise ValueError(f"x {x.shape} must end in K={packed.shape[1]} of the weights {packed.shape}")
  if (scale is not None) != (packed.dtype == jnp.int8):
    raise ValueError("int8 weights need a scale [n], float weights must not have one")
  if scale is not None and (scale.shape != (n,) or scale.dtype != jnp.float32):
    raise ValueError(f"scale must be float32 [{n}], got {scale.dtype} {scale.shape}")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _product(implementation, n, x_MxK, packed, scale):
  compute = _native if implementation == "native" else _xla
  return _batched(functools.partial(compute, n), x_MxK, packed, scale)


@_product.defjvp
def _no_gradient(implementation, n, primals, tangents):
  raise NotImplementedError(
    "packed_matmul has no gradient, because packed weights are for decoding: differentiate the "
    "model with its unpacked kernels"
  )


def _batched(compute, *operands):
  """Calls compute(x, packed, scale) with a vmap rule: a batch over shared weights is more rows."""
  function = jax.custom_batching.custom_vmap(compute)

  @function.def_vmap
  def rule(size, batched, x, packed, scale):
    x_batched, *weights_batched = batched
    if any(weights_batched):
      parts = [
        a if b else jnp.broadcast_to(a, (size, *a.shape))
        for a, b in zip((x, packed, scale), batched, strict=True)
      ]
      return jax.lax.map(lambda part: function(*part), tuple(parts)), True
    y = function(x.reshape(-1, x.shape[-1]), packed, scale)
    return y.reshape(*x.shape[:-1], y.shape[-1]), True

  return function(*operands)


def _native(n, x_MxK, packed, scale):
  shape = jax.ShapeDtypeStruct((x_MxK.shape[0], n), jnp.float32)
  if 0 in (math.prod(shape.shape), x_MxK.shape[1]):
    return jnp.zeros(shape.shape, shape.dtype)
  return jax.ffi.ffi_call(build.TARGET, shape)(x_MxK, packed, scale)


def _xla(n, x_MxK, packed, scale):
  kernel = unpack_weights(packed, n).astype(jnp.float32)
  y = jnp.dot(x_MxK, kernel, precision=jax.lax.Precision.HIGHEST)
  return y if scale.size == 0 else y * scale
