"""The product x W in float32 for packed weights: native code if it works, else XLA."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mtjax.native import build
from mtjax.native.packed_weights import (
  check_packed,
  check_stacked,
  pack_weights,
  quantize_int8,
  unpack_weights,
)

__all__ = [
  "pack_weights",
  "packed_matmul",
  "quantize_int8",
  "stacked_matmul",
  "support",
  "unpack_weights",
]

IMPLEMENTATIONS = ("native", "xla")


def support() -> str | None:
  """Returns None if the native code can be used here, and else the reason.

  The first call waits for the compiler; `hindrance` does not.
  """
  return _other_backend() or build.unavailable()


def hindrance() -> str | None:
  """Returns the reason why the native code cannot be used, if it is known without the compiler."""
  return _other_backend() or build.hindrance()


def _other_backend() -> str | None:
  backend = jax.default_backend()
  if backend == "cpu":
    return None
  return f"the default backend is {backend}, the native code is for cpu"


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
  product of length K. With "native", the bits of a row also do not depend on the other rows, their
  number and the threads, and for int8 weights x is rounded to 16-bit fixed point: the entries of
  each 128 consecutive k move by at most max|x| / 65534 of these entries, which is small beside the
  rounding of the weights to int8. NaN and infinities propagate.

  implementation: None means "native" if `support()` is None, else "xla"; a name never falls back
  (RuntimeError with the reason). It works under jit, loops and vmap, but has no gradient: keep the
  kernel unpacked for training.
  """
  check_packed(packed, n)
  _check(x, packed, scale, (n,))
  return _multiply(x, packed, scale, 0, n, implementation)


def stacked_matmul(
  x: Float[Array, "*M K"],
  stacked: Num[Array, "L P K W"],
  scale: Float[Array, "L N"] | None,
  layer: Int[Array, ""] | int,
  *,
  n: int,
  implementation: str | None = None,
) -> Float[Array, "*M N"]:
  """Returns packed_matmul(x, stacked[layer], scale[layer], n=n) without a copy of the weights.

  It is for a loop over layers of one shape, whose packed weights are one array: "native" reads the
  panels of `layer` where they lie. `layer` may be traced, and is then clamped to [0, L - 1], as
  indices of XLA's slices are. Everything else is as in `packed_matmul`.
  """
  check_stacked(stacked, n)
  _check(x, stacked, scale, (stacked.shape[0], n))
  if jnp.ndim(layer) or not jnp.issubdtype(jnp.result_type(layer), jnp.integer):
    raise ValueError(f"layer must be one whole number, got {layer!r}")
  if not isinstance(layer, jax.Array) and not 0 <= layer < stacked.shape[0]:
    raise ValueError(f"layer must be in [0, {stacked.shape[0]}), got {layer}")
  return _multiply(x, stacked, scale, layer, n, implementation)


def _check(x, packed, scale, scale_shape) -> None:
  if x.dtype != jnp.float32:
    raise ValueError(f"x must be float32, got {x.dtype}")
  if x.ndim < 1 or x.shape[-1] != packed.shape[-2]:
    raise ValueError(f"x {x.shape} must end in K={packed.shape[-2]} of the weights {packed.shape}")
  if (scale is not None) != (packed.dtype == jnp.int8):
    raise ValueError("int8 weights need a scale [n], float weights must not have one")
  if scale is not None and (scale.shape != scale_shape or scale.dtype != jnp.float32):
    raise ValueError(f"scale must be float32 {list(scale_shape)}, got {scale.dtype} {scale.shape}")


def _multiply(x, packed, scale, layer, n, implementation):
  if implementation is not None and implementation not in IMPLEMENTATIONS:
    raise ValueError(f"implementation must be None or in {IMPLEMENTATIONS}, got {implementation!r}")
  reason = support() if implementation != "xla" else None
  if reason is not None and implementation == "native":
    raise RuntimeError(f"implementation='native' cannot run: {reason}")
  chosen = implementation or ("xla" if reason else "native")
  if scale is None:
    scale = jnp.zeros((0,), jnp.float32)
  layer = jnp.asarray(layer, jnp.int32)
  y_MxN = _product(chosen, n, x.reshape(-1, x.shape[-1]), packed, scale, layer)
  return y_MxN.reshape(*x.shape[:-1], n)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _product(implementation, n, x_MxK, packed, scale, layer):
  compute = _native if implementation == "native" else _xla
  return _batched(functools.partial(compute, n), x_MxK, packed, scale, layer)


@_product.defjvp
def _no_gradient(implementation, n, primals, tangents):
  raise NotImplementedError(
    "packed_matmul has no gradient, because packed weights are for decoding: differentiate the "
    "model with its unpacked kernels"
  )


def _batched(compute, *operands):
  """Calls compute(x, *weights) with a vmap rule: a batch over shared weights is more rows."""
  function = jax.custom_batching.custom_vmap(compute)

  @function.def_vmap
  def rule(size, batched, x, *weights):
    del size
    weights_batched = batched[1:]
    if any(weights_batched):
      # Only what differs is mapped over: what all share must not be copied.
      every = (x, *weights)
      parts = [a for a, b in zip(every, batched, strict=True) if b]

      def one(parts):
        rest = iter(parts)
        return function(*(next(rest) if b else a for a, b in zip(every, batched, strict=True)))

      return jax.lax.map(one, parts), True
    y = function(x.reshape(-1, x.shape[-1]), *weights)
    return y.reshape(*x.shape[:-1], y.shape[-1]), True

  return function(*operands)


def _native(n, x_MxK, packed, scale, layer):
  shape = jax.ShapeDtypeStruct((x_MxK.shape[0], n), jnp.float32)
  if 0 in (math.prod(shape.shape), x_MxK.shape[1]):
    return jnp.zeros(shape.shape, shape.dtype)
  return jax.ffi.ffi_call(build.TARGET, shape)(x_MxK, packed, scale, layer)


def _xla(n, x_MxK, packed, scale, layer):
  if packed.ndim == 4:
    at = jnp.clip(layer, 0, packed.shape[0] - 1)
    packed, scale = packed[at], scale[at] if scale.size else scale
  kernel = unpack_weights(packed, n).astype(jnp.float32)
  y = jnp.dot(x_MxK, kernel, precision=jax.lax.Precision.HIGHEST)
  return y if scale.size == 0 else y * scale
