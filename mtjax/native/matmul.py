"""x W in float32 for weights in panels: native code where it works, XLA elsewhere."""

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
  """None when the native code can be used here, else the reason."""
  backend = jax.default_backend()
  if backend != "cpu":
    return f"the default backend is {backend}, the native code is for cpu"
  return build.unavailable()


def packed_matmul(
  x: Float[Array, "*M K"],
  panels: Num[Array, "P K W"],
  scale: Float[Array, " N"] | None = None,
  *,
  n: int,
  implementation: str | None = None,
) -> Float[Array, "*M N"]:
  """x @ unpack_weights(panels, n) (* scale), all in float32.

  bfloat16 and int8 weights take part as the float32 numbers they are; `scale` [n] belongs to int8
  panels and to no others. Both implementations have the rounding error of a float32 dot product
  of length K; "native" moreover gives a row the same bits whatever the other rows, their number
  and the threads are. NaN and infinities propagate.

  implementation: None takes "native" where `support()` is None, else "xla"; a name never falls
  back (RuntimeError with the reason). Works under jit, loops and vmap; has no gradient: keep the
  kernel unpacked for training.
  """
  _check(x, panels, scale, n, implementation)
  reason = support() if implementation != "xla" else None
  if reason is not None and implementation == "native":
    raise RuntimeError(f"implementation='native' cannot run: {reason}")
  chosen = implementation or ("xla" if reason else "native")
  if scale is None:
    scale = jnp.zeros((0,), jnp.float32)
  y_MxN = _product(chosen, n, x.reshape(-1, x.shape[-1]), panels, scale)
  return y_MxN.reshape(*x.shape[:-1], n)


def _check(x, panels, scale, n, implementation) -> None:
  check_packed(panels, n)
  if implementation is not None and implementation not in IMPLEMENTATIONS:
    raise ValueError(f"implementation is {implementation!r}, must be None or {IMPLEMENTATIONS}")
  if x.dtype != jnp.float32:
    raise ValueError(f"x must be float32, got {x.dtype}")
  if x.ndim < 1 or x.shape[-1] != panels.shape[1]:
    raise ValueError(f"x {x.shape} must end in K={panels.shape[1]} of panels {panels.shape}")
  if (scale is not None) != (panels.dtype == jnp.int8):
    raise ValueError("int8 panels need a scale [n], float panels must not have one")
  if scale is not None and (scale.shape != (n,) or scale.dtype != jnp.float32):
    raise ValueError(f"scale must be float32 [{n}], got {scale.dtype} {scale.shape}")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _product(implementation, n, x_MxK, panels, scale):
  compute = _native if implementation == "native" else _xla
  return _batched(functools.partial(compute, n), x_MxK, panels, scale)


@_product.defjvp
def _no_gradient(implementation, n, primals, tangents):
  raise NotImplementedError(
    "packed_matmul has no gradient: panels are for decoding; differentiate the model with its "
    "unpacked kernels"
  )


def _batched(compute, *operands):
  """compute(x, panels, scale) with a vmap rule: rows of a shared weight are more rows."""
  function = jax.custom_batching.custom_vmap(compute)

  @function.def_vmap
  def rule(size, batched, x, panels, scale):
    x_batched, *weights_batched = batched
    if any(weights_batched):
      parts = [
        a if b else jnp.broadcast_to(a, (size, *a.shape))
        for a, b in zip((x, panels, scale), batched, strict=True)
      ]
      return jax.lax.map(lambda part: function(*part), tuple(parts)), True
    y = function(x.reshape(-1, x.shape[-1]), panels, scale)
    return y.reshape(*x.shape[:-1], y.shape[-1]), True

  return function(*operands)


def _native(n, x_MxK, panels, scale):
  shape = jax.ShapeDtypeStruct((x_MxK.shape[0], n), jnp.float32)
  if 0 in (math.prod(shape.shape), x_MxK.shape[1]):
    return jnp.zeros(shape.shape, shape.dtype)
  return jax.ffi.ffi_call(build.TARGET, shape)(x_MxK, panels, scale)


def _xla(n, x_MxK, panels, scale):
  kernel = unpack_weights(panels, n).astype(jnp.float32)
  y = jnp.dot(x_MxK, kernel, precision=jax.lax.Precision.HIGHEST)
  return y if scale.size == 0 else y * scale
