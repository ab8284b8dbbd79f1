"""Quantised blocks as float32.

The blocks of 32 are computed here, the rest by `gguf.quants`. That package computes all of them, to
the same bits, but it was most of the time to load a model of 135 M weights: 0.8 s, against 0.25 s
here. Formats: ggml-common.h; formulas: ggml-quants.c, dequantize_row_*.
"""

import importlib.util
from typing import Any

import numpy as np

from mtjax.checkpoints.gguf.kinds import FLOATS, TensorKind

_LOW = np.uint64(0x0F0F0F0F0F0F0F0F)
_HALF = "V16"  # 16 bytes as one thing, which NumPy copies at once

# The blocks of 32: scale d, in some kinds an offset m, the fifth bits, then the numbers.
_LAYOUTS = {
  "Q4_0": [("d", "<f2"), ("low", _HALF)],
  "Q4_1": [("d", "<f2"), ("m", "<f2"), ("low", _HALF)],
  "Q5_0": [("d", "<f2"), ("high", "V4"), ("low", _HALF)],
  "Q5_1": [("d", "<f2"), ("m", "<f2"), ("high", "V4"), ("low", _HALF)],
  "Q8_0": [("d", "<f2"), ("all", "V32")],
}
_ZERO = {"Q4_0": 8, "Q5_0": 16}  # the number that stands for zero


def check_package(kinds: set[str], file: object) -> None:
  """Raises ImportError that names the extra if kinds need the package and it is missing."""
  others = sorted(kinds - set(_LAYOUTS) - set(FLOATS))
  if others and importlib.util.find_spec("gguf") is None:
    raise ImportError(
      f"{file} has tensors of type {', '.join(others)}, which need the package gguf: "
      "`pip install 'mtjax[gguf]'`"
    )


def dequantize(raw: np.ndarray, kind: TensorKind) -> np.ndarray:
  """Returns the float32 numbers, in one dimension, of rows [n, bytes] of whole blocks, uint8."""
  if kind.name in _LAYOUTS:
    return _of_32(raw.reshape(-1), kind)
  import gguf

  return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind.name]).reshape(-1)


def _of_32(raw: np.ndarray, kind: TensorKind) -> np.ndarray:
  """Returns d * (number - zero) + m for each block."""
  blocks: Any = raw.view(np.dtype(_LAYOUTS[kind.name]))
  names = [name for name, _ in _LAYOUTS[kind.name]]
  if "all" in names:
    numbers = np.ascontiguousarray(blocks["all"]).view(np.int8).reshape(-1, 32)
  else:
    numbers = _nibbles(np.ascontiguousarray(blocks["low"]))
  if "high" in names:
    bits = np.ascontiguousarray(blocks["high"]).view(np.uint8)
    numbers |= np.unpackbits(bits, bitorder="little").reshape(-1, 32) << 4
  if kind.name in _ZERO:
    numbers = numbers.view(np.int8)
    numbers -= np.int8(_ZERO[kind.name])
  out = numbers.astype(np.float32)
  out *= blocks["d"].astype(np.float32)[:, None]
  if "m" in names:
    out += blocks["m"].astype(np.float32)[:, None]
  return out.reshape(-1)


def _nibbles(packed: np.ndarray) -> np.ndarray:
  """Returns [n, 32] bytes: the low halves of the 16 bytes of each block, then the high halves."""
  words = packed.view(np.uint64)
  out = np.empty((len(packed), 2), _HALF)
  out[:, 0] = (words & _LOW).view(_HALF)
  out[:, 1] = ((words >> np.uint64(4)) & _LOW).view(_HALF)
  return out.view(np.uint8)
