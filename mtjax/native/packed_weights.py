"""The layout of packed weights: panels of 64 outputs, each read once from its start to its end."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Num

WIDTH = 64

# Bytes of a weight -> number of consecutive inputs of one output that share a 32-bit word.
_WORD = {4: 1, 2: 2, 1: 4}


def pack_weights(kernel_KxN: Num[Array | np.ndarray, "K N"]) -> Num[Array, "P K W"]:
  """Packs [K, N] into panels [ceil(N / 64), K, 64] of the same type: float32, bfloat16 or int8.

  Output n is in panel n // 64; missing outputs of the last panel are 0. In a panel of bfloat16
  (int8), each 2 (4) consecutive k are interleaved output by output, so that they fill a 32-bit
  word; the K % 2 (K % 4) last k are plain rows. `unpack_weights` is the inverse.
  """
  if kernel_KxN.ndim != 2:
    raise ValueError(f"a kernel must be [K, N], got shape {kernel_KxN.shape}")
  word = _word(kernel_KxN.dtype)
  K, N = kernel_KxN.shape
  P = -(-N // WIDTH)
  kernel = jnp.pad(kernel_KxN, ((0, 0), (0, P * WIDTH - N)))
  panels = kernel.reshape(K, P, WIDTH).swapaxes(0, 1)
  whole = K - K % word
  words = panels[:, :whole].reshape(P, whole // word, word, WIDTH).swapaxes(2, 3)
  return jnp.concatenate([words.reshape(P, whole, WIDTH), panels[:, whole:]], axis=1)


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
  kernel = kernel_KxN.astype(jnp.float32)
  top = jnp.max(jnp.abs(kernel), axis=0)
  scale = jnp.where(top > 0, top / 127.0, 1.0)
  return jnp.round(kernel / scale).astype(jnp.int8), scale


def _word(dtype) -> int:
  if dtype not in (jnp.float32, jnp.bfloat16, jnp.int8):
    raise ValueError(f"packed weights must be float32, bfloat16 or int8, got {dtype}")
  return _WORD[jnp.dtype(dtype).itemsize]
