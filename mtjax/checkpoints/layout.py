"""Parameters as transformers stores them: the parts of stored tensors that make one of ours."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from mtjax.checkpoints.reading import TensorSource

# Bytes read at once. Few, because they are in memory together with the parameter, and so few that
# the allocator keeps their memory between reads instead of asking the system for new pages.
_CHUNK = 1 << 20
# JAX on a CPU uses arrays that are aligned so without a copy.
_ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class Piece:
  """The outputs start, ..., stop - 1 of a stored tensor."""

  name: str
  shape: tuple[int, ...]  # of the whole stored tensor
  start: int
  stop: int


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A parameter as pieces of stored tensors, its outputs one piece after another.

  `rows`: tables [V, D] and vectors, stored as they are (norms over several axes: flat).
  `out_in`: kernels, ours [in, out], stored [out, in] (torch.nn.Linear). `in_out`: kernels stored as
  ours are (GPT-2's Conv1D). Stored axes after the second count as one with it (XLNet's heads).
  """

  layout: Literal["rows", "out_in", "in_out"]
  pieces: tuple[Piece, ...]

  def placed(self) -> Iterator[tuple[Piece, int]]:
    """Yields each piece with the index of its first output in the parameter."""
    at = 0
    for piece in self.pieces:
      yield piece, at
      at += piece.stop - piece.start

  @property
  def outputs(self) -> int:
    return sum(piece.stop - piece.start for piece in self.pieces)

  @property
  def parameter_shape(self) -> tuple[int, ...]:
    """The shape of the parameter, if it has no more axes than stored."""
    shape = self.pieces[0].shape
    if self.layout == "rows":
      return (self.outputs, *shape[1:])
    inputs = shape[0] if self.layout == "in_out" else math.prod(shape[1:])
    return (inputs, self.outputs)


def whole(layout: Literal["rows", "out_in", "in_out"], name: str, *shape: int) -> Recipe:
  """Returns the recipe of a parameter that is one stored tensor of that shape."""
  outputs = math.prod(shape[1:]) if layout == "in_out" else shape[0]
  return Recipe(layout, (Piece(name, shape, 0, outputs),))


def stored_shapes(recipes: Mapping[str, Recipe]) -> dict[str, tuple[int, ...]]:
  """Returns names and shapes of all stored tensors, in the order of their parameters."""
  return {piece.name: piece.shape for recipe in recipes.values() for piece in recipe.pieces}


def read_block(
  recipe: Recipe,
  stored: TensorSource,
  shape: tuple[int, ...],
  index: Sequence[slice],
  dtype: np.dtype,
) -> np.ndarray:
  """Reads parameter[index] of a parameter of `shape`, in chunks of a MB of the files.

  It needs no more memory than the result and a chunk. The result is aligned so that JAX on a CPU
  uses it without a copy: do not write to it afterwards.
  """
  bounds = [s.indices(size)[:2] for s, size in zip(index, shape, strict=True)]
  out = _aligned(tuple(stop - start for start, stop in bounds), dtype)
  if recipe.layout == "in_out":
    _read_in_out(recipe, stored, bounds, out)
  elif recipe.layout == "out_in":
    (first, last), outputs = bounds
    _read_rows(recipe, stored, outputs, out.T, slice(first, last))
  elif len(recipe.pieces[0].shape) == 1 and len(shape) > 1:
    flat = np.empty(recipe.outputs, dtype)
    _read_rows(recipe, stored, (0, recipe.outputs), flat, ...)
    out[...] = flat.reshape(shape)[tuple(index)]
  else:
    columns = slice(*bounds[1]) if len(bounds) > 1 else ...
    _read_rows(recipe, stored, bounds[0], out, columns)
  return out


def same_numbers(stored: TensorSource, one: str, other: str) -> bool:
  """Returns True if two stored tensors of one shape hold the same numbers, in any dtypes.

  NaN equals NaN.
  """
  size = max(stored.row_bytes(one), stored.row_bytes(other))
  for start, n in _chunks(0, stored.tensors[one].shape[0], size):
    # Copied, because the next read overwrites the buffer.
    rows = stored.rows(one, start, start + n).astype(np.float32)
    others = stored.rows(other, start, start + n).astype(np.float32)
    if not np.array_equal(rows, others, equal_nan=True):
      return False
  return True


def _read_rows(recipe, stored, outputs, out, columns):
  """Sets out[o - first, :] = row o for every output o from first to last."""
  first, last = outputs
  for piece, at in recipe.placed():
    begin, end = max(first, at), min(last, at + piece.stop - piece.start)
    for o, n in _chunks(begin, end, stored.row_bytes(piece.name)):
      row = piece.start + o - at
      rows = _flat(stored.rows(piece.name, row, row + n))
      out[o - first : o - first + n] = rows if columns is ... else rows[:, columns]


def _read_in_out(recipe, stored, bounds, out):
  (top, bottom), (first, last) = bounds
  for name in dict.fromkeys(piece.name for piece in recipe.pieces):
    for i, n in _chunks(top, bottom, stored.row_bytes(name)):
      rows = _flat(stored.rows(name, i, i + n))
      for piece, at in recipe.placed():
        begin, end = max(first, at), min(last, at + piece.stop - piece.start)
        if piece.name == name and begin < end:
          shift = piece.start - at
          columns = rows[:, begin + shift : end + shift]
          out[i - top : i - top + n, begin - first : end - first] = columns


def _flat(rows: np.ndarray) -> np.ndarray:
  return rows.reshape(len(rows), -1) if rows.ndim > 2 else rows


def _chunks(begin: int, end: int, row_bytes: int) -> Iterator[tuple[int, int]]:
  size = max(1, _CHUNK // row_bytes)
  for start in range(begin, end, size):
    yield start, min(size, end - start)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
  size = math.prod(shape) * dtype.itemsize
  raw = np.empty(size + _ALIGNMENT, np.uint8)
  offset = -raw.ctypes.data % _ALIGNMENT
  return raw[offset : offset + size].view(dtype).reshape(shape)


def stored_tensor(recipe: Recipe, parameter: np.ndarray, name: str) -> np.ndarray:
  """Returns the stored tensor `name`, contiguous, out of the parameter that holds it."""
  shape = next(piece.shape for piece in recipe.pieces if piece.name == name)
  whole = np.empty(shape, parameter.dtype)
  out = _flat(whole)
  if recipe.layout == "rows" and len(shape) == 1:
    parameter = parameter.reshape(-1)
  elif recipe.layout == "out_in":
    parameter = parameter.T
  for piece, at in recipe.placed():
    size = piece.stop - piece.start
    if piece.name == name and recipe.layout == "in_out":
      out[:, piece.start : piece.stop] = parameter[:, at : at + size]
    elif piece.name == name:
      out[piece.start : piece.stop] = parameter[at : at + size]
  return whole
