"""The layout of packed weights: panels of 64 outputs, each read once from its start to its end."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8, Num

from mtjax.native.memory import huge_array, without_copy

WIDTH = 64
_THREADS = 2  # that write packed weights

# Bytes of a weight -> number of consecutive inputs of one output that share a 32-bit word.
_WORD = {4: 1, 2: 2, 1: 4}


def pack_weights(
  kernel_KxN: Num[Array | np.ndarray, "K N"], dtype: DTypeLike | None = None
) -> Num[Array, "P K W"]:
  """Packs [K, N] into panels [ceil(N / 64), K, 64] of float32, bfloat16 or int8.

  Output n is in panel n // 64; missing outputs of the last panel are 0. In a panel of bfloat16
  (int8), each 2 (4) consecutive k are interleaved output by output, so that they fill a 32-bit
  word; the K % 2 (K % 4) last k are plain rows. `unpack_weights` is the inverse. `dtype` and the
  memory are those of `pack_stack`.
  """
  # Cut while it is numpy's: a part of an array of JAX is a copy, on small pages.
  return without_copy(_packed([kernel_KxN], dtype)[0])


def pack_stack(
  kernels_KxN: Sequence[Num[Array | np.ndarray, "K N"]], dtype: DTypeLike | None = None
) -> Num[Array, "L P K W"]:
  """Returns several kernels of one shape, each packed as by `pack_weights`, in one array.

  `dtype` must hold every weight exactly (None: that of the kernels). The array is written once, on
  the host, to huge pages where there are any.
  """
  return without_copy(_packed(kernels_KxN, dtype))


def _packed(kernels_KxN, dtype: DTypeLike | None) -> np.ndarray:
  if len({kernel.shape for kernel in kernels_KxN}) != 1 or kernels_KxN[0].ndim != 2:
    shapes = sorted({kernel.shape for kernel in kernels_KxN})
    raise ValueError(f"a kernel must be [K, N], and all of one shape, got {shapes}")
  dtype = np.dtype(kernels_KxN[0].dtype if dtype is None else dtype)
  _word(dtype)
  K, N = kernels_KxN[0].shape
  packed = huge_array((len(kernels_KxN), -(-N // WIDTH), K, WIDTH), dtype)
  # Most of the time is that of touching new memory, which threads share.
  with ThreadPoolExecutor(_THREADS) as pool:
    list(pool.map(_fill, packed, map(np.asarray, kernels_KxN)))
  return packed


def _fill(panels_PxKxW: np.ndarray, kernel_KxN: np.ndarray) -> None:
  kernel = bits_of(kernel_KxN, panels_PxKxW.dtype)
  panels = panels_PxKxW.view(kernel.dtype)
  word, (K, N) = _WORD[kernel.dtype.itemsize], kernel.shape
  whole, full = K - K % word, N // WIDTH
  # Memory is zero at first, and so the missing outputs of the last panel stay 0.
  for first, count, width in ((0, full, WIDTH), (full, 1, N - full * WIDTH)):
    if not count or not width:
      continue
    part = kernel[:, first * WIDTH : first * WIDTH + count * width].reshape(K, count, width)
    here = panels[first : first + count]
    words = here[:, :whole].reshape(count, whole // word, WIDTH, word)
    words[:, :, :width] = part[:whole].reshape(-1, word, count, width).transpose(2, 0, 3, 1)
    here[:, whole:, :width] = part[whole:].swapaxes(0, 1)


def bits_of(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Returns values as `dtype`, of which numpy copies the bits faster than it converts numbers.

  float32 is cut to bfloat16, which is exact for values that `holds_exactly` finds.
  """
  if dtype == jnp.bfloat16:
    if values.dtype == jnp.bfloat16:
      return values.view(np.uint16)
    return (values.astype(np.float32, copy=False).view(np.uint32) >> 16).astype(np.uint16)
  return values.astype(dtype, copy=False)


def holds_exactly(dtype: DTypeLike, values: np.ndarray) -> bool:
  """Returns whether bfloat16, or any wider float type, holds every one of these floats."""
  if dtype != jnp.bfloat16 or values.dtype == jnp.bfloat16:
    return True
  flat = values.astype(np.float32, copy=False).reshape(-1).view(np.uint32)
  # Of most weights the first thousand tell.
  return not (flat[:1024] & 0xFFFF).any() and not (flat & 0xFFFF).any()


def unpack_weights(packed: Num[Array, "P K W"], n: int) -> Num[Array, "K N"]:
  """Returns the kernel [K, n] that `pack_weights` packed."""
  check_packed(packed, n)
  word = _word(packed.dtype)
  P, K, _ = packed.shape
  whole = K - K % word
  words = packed[:, :whole].reshape(P, whole // word, WIDTH, word).swapaxes(2, 3)
  plain = jnp.concatenate([words.reshape(P, whole, WIDTH), packed[:, whole:]], axis=1)
  return plain.swapaxes(0, 1).reshape(K, P * WIDTH)[:, :n]


def check_packed(packed: Num[Array, "P K W"], n: int) -> None:
  """Raises ValueError unless these are packed weights of n outputs."""
  _check_panels(packed.shape, packed.dtype, n)


def check_stacked(stacked: Num[Array, "L P K W"], n: int) -> None:
  """Raises ValueError unless these are packed weights of n outputs for each of several layers."""
  if stacked.ndim != 4 or stacked.shape[0] < 1:
    raise ValueError(
      f"stacked weights must be [L, P, K, {WIDTH}], one packed array per layer, "
      f"got shape {stacked.shape}"
    )
  _check_panels(stacked.shape[1:], stacked.dtype, n)


def _check_panels(shape, dtype, n: int) -> None:
  _word(dtype)
  if len(shape) != 3 or shape[2] != WIDTH:
    raise ValueError(
      f"packed weights must be [P, K, {WIDTH}] (see pack_weights), got shape {shape}"
    )
  if -(-n // WIDTH) != shape[0]:
    raise ValueError(f"{shape[0]} panels of {WIDTH} outputs do not hold n={n} outputs")


def quantize_int8(
  kernel_KxN: Float[Array | np.ndarray, "K N"],
) -> tuple[Int8[Array, "K N"], Float[Array, " N"]]:
  """Quantises symmetrically by output channel: kernel ~ int8 * scale, |error| <= scale / 2.

  scale = max|column| / 127 (1 for a column of zeros), rounded to nearest even.
  """
  return _quantized(kernel_KxN)


@jax.jit
def _quantized(kernel_KxN):
  kernel = kernel_KxN.astype(jnp.float32)
  top = jnp.max(jnp.abs(kernel), axis=0)
  scale = jnp.where(top > 0, top / 127.0, 1.0)
  return jnp.round(kernel / scale).astype(jnp.int8), scale


def _word(dtype) -> int:
  if dtype not in (jnp.float32, jnp.bfloat16, jnp.int8):
    raise ValueError(f"packed weights must be float32, bfloat16 or int8, got {dtype}")
  return _WORD[jnp.dtype(dtype).itemsize]
