"""The tensors of a GGUF file, read by rows, as transformers names and orders them."""

import contextlib
import dataclasses
import io
import math
from pathlib import Path

import ml_dtypes
import numpy as np

from mtjax.checkpoints.gguf.architectures import architecture_of
from mtjax.checkpoints.gguf.blocks import check_package, dequantize
from mtjax.checkpoints.gguf.kinds import FLOATS, TensorKind, kind_of
from mtjax.checkpoints.header import Tensor
from mtjax.data.gguf.header import GgufHeader, TensorPlace, read_header

_FACTORS = "rope_freqs.weight"
_DTYPES = {
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True)
class GgufTensor(Tensor):
  """The place of a tensor, and what makes it the one of transformers."""

  kind: TensorKind
  rotated: int = 0  # outputs of a head whose neighbours rotate together; 0: the order is ours
  shift: float = 0.0  # what is subtracted


class GgufTensors(contextlib.AbstractContextManager):
  """The tensors of a file by transformers' names (see `mtjax.checkpoints.reading.TensorSource`).

  Quantised tensors are read as float32, floats as they are. Raises ValueError that names the file
  and the tensor for a type that cannot be read, and for data that is not whole; ImportError that
  names the extra if a type needs the package gguf. No tensor is read for these.
  """

  described_by = "metadata"

  def __init__(self, file: Path):
    self.source = file
    self.header = read_header(file)
    self.name, self.architecture = architecture_of(self.header)
    kinds = _checked(self.header)
    check_package({kind.name for kind in kinds.values()}, file)
    self._factors = self.header.tensors.get(_FACTORS)
    self.tensors: dict[str, Tensor] = {
      self.architecture.name_of(name): self._tensor(name, place, kinds[name])
      for name, place in self.header.tensors.items()
      if name != _FACTORS
    }
    self._stream: io.FileIO | None = None
    self._scratch = np.empty(0, np.uint8)

  def dtype(self, name: str) -> np.dtype:
    return _DTYPES.get(self.tensors[name].dtype, _DTYPES["F32"])

  def row_bytes(self, name: str) -> int:
    return max(1, math.prod(self.tensors[name].shape[1:]) * self.dtype(name).itemsize)

  def rows(self, name: str, start: int, stop: int) -> np.ndarray:
    """Returns tensor[start:stop], valid until the next call."""
    tensor = self.tensors[name]
    assert isinstance(tensor, GgufTensor)
    head = tensor.rotated
    if not head:
      rows = self._stored(tensor, start, stop)
      return rows if not tensor.shift else (rows - np.float32(tensor.shift)).astype(rows.dtype)
    # Whole heads: the outputs of one are not in our order.
    begin, end = start // head * head, min(-(-stop // head) * head, tensor.shape[0])
    return self._stored(tensor, begin, end)[_places(start, stop, head) - begin]

  def rope_factors(self) -> np.ndarray | None:
    """Returns what the frequencies of rotary positions are divided by, or None."""
    if self._factors is None:
      return None
    kind = kind_of(self._factors.kind, f"{_FACTORS} of {self.source}")
    tensor = GgufTensor(self.source, kind.name, self._factors.shape, self._factors.offset, kind)
    return self._stored(tensor, 0, tensor.shape[0]).astype(np.float32).reshape(-1)

  def __exit__(self, *exception):
    if self._stream is not None:
      self._stream.close()

  def _tensor(self, name: str, place: TensorPlace, kind: TensorKind) -> GgufTensor:
    rotated = 0
    if self.architecture.has_neighbour_rope and self.architecture.rotates(name):
      rotated = _head_dim(self.header, self.name)
      if not place.shape or place.shape[0] % rotated:
        raise ValueError(
          f"{name} of {self.source} is {list(place.shape)}, which is no whole number of heads of "
          f"{rotated}"
        )
    shift = self.architecture.shift_of(name)
    return GgufTensor(self.source, kind.name, place.shape, place.offset, kind, rotated, shift)

  def _stored(self, tensor: GgufTensor, start: int, stop: int) -> np.ndarray:
    """Reads rows as they are stored, into one buffer, and makes floats of them."""
    width = math.prod(tensor.shape[1:])
    size = width // tensor.kind.numbers * tensor.kind.size
    if self._stream is None:
      self._stream = io.FileIO(self.source)
    length = (stop - start) * size
    if self._scratch.size < length:
      self._scratch = np.empty(length, np.uint8)
    buffer, got = self._scratch.data[:length], 0
    self._stream.seek(tensor.offset + start * size)
    while got < length:
      more = self._stream.readinto(buffer[got:])
      if not more:
        raise ValueError(f"{self.source} ended while it was read")
      got += more
    raw = self._scratch[:length]
    name = tensor.kind.name
    if name in FLOATS:
      numbers = raw.view(_DTYPES[name])
    else:
      numbers = dequantize(raw.reshape(-1, size), tensor.kind)
    return numbers.reshape(-1, *tensor.shape[1:])


def _head_dim(header: GgufHeader, name: str) -> int:
  heads = max(1, header.whole(f"{name}.attention.head_count"))
  width = header.whole(f"{name}.embedding_length") // heads
  head = header.whole(f"{name}.attention.key_length", width)
  if head < 2 or head % 2:
    raise ValueError(f"{header.file} has heads of {head} numbers, which cannot rotate in pairs")
  return head


def _places(start: int, stop: int, head: int) -> np.ndarray:
  """Returns where our outputs are stored: number i of half h of a head is at 2 * i + h."""
  outputs = np.arange(start, stop)
  within = outputs % head
  half, number = np.divmod(within, head // 2)
  return outputs - within + 2 * number + half


def _checked(header: GgufHeader) -> dict[str, TensorKind]:
  """Returns the kind of each tensor, all of whose data is in the file, none of it twice.

  Raises ValueError otherwise.
  """
  file, kinds, ranges = header.file, {}, []
  for name, place in header.tensors.items():
    kinds[name] = kind = kind_of(place.kind, f"{name!r:.80} of {file}")
    count = math.prod(place.shape)
    if not place.shape or not count or place.shape[-1] % kind.numbers:
      raise ValueError(
        f"{file} is damaged: {name!r:.80} is {list(place.shape)}; the last size of {kind.name} "
        f"must be a multiple of {kind.numbers}, and no size may be 0"
      )
    if place.offset % header.alignment:
      raise ValueError(
        f"{file} is damaged: {name!r:.80} begins at byte {place.offset}, which is no multiple of "
        f"{header.alignment}"
      )
    ranges.append((place.offset, place.offset + count // kind.numbers * kind.size, name))
  at, before = 0, ""
  for start, stop, name in sorted(ranges):
    if start < at:
      raise ValueError(f"{file} is damaged: {name!r:.80} begins before {before!r:.80} ends")
    at, before = stop, name
  if at > header.size:
    raise ValueError(
      f"{file} was cut or is damaged: {before!r:.80} ends at byte {at}, but the file at "
      f"{header.size}"
    )
  return kinds
