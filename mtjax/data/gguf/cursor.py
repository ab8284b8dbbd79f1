"""Reads the values of a GGUF header, none of which may reach past the end of the file."""

import struct
from pathlib import Path
from typing import IO, Any

import numpy as np

# The format's types of values -> little-endian struct codes; 8 is text and 9 an array.
_SCALARS = {
  0: "<B",
  1: "<b",
  2: "<H",
  3: "<h",
  4: "<I",
  5: "<i",
  6: "<f",
  7: "<?",
  10: "<Q",
  11: "<q",
  12: "<d",
}
_TEXT, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")  # of a text, before it
_MIN_TEXT = _LENGTH.size
_WINDOW = 1 << 20  # bytes read at once
_MAX_HEADER = 100_000_000  # bytes; 256,000 tokens with their merges need a fifth of it


class Cursor:
  """A position in the header of a file, of which no more is read than the header needs.

  Every length and count is compared with what is left of the file before anything is read or
  allocated, so that a damaged one gives a ValueError that names the file, and no large array.
  """

  def __init__(self, file: Path, stream: IO[bytes], size: int):
    self._file, self._stream, self._size = file, stream, size
    self._buffer, self.offset = b"", 0

  def read(self, length: int) -> bytes:
    begin = self._skip(length)
    return self._buffer[begin : begin + length]

  def number(self, code: str) -> Any:
    """Returns the number that `struct` reads with a code such as "<I"."""
    begin = self._skip(struct.calcsize(code))
    return struct.unpack_from(code, self._buffer, begin)[0]

  def text(self) -> str:
    at, content = self.offset, self.read(self.number("<Q"))
    try:
      return content.decode()
    except UnicodeDecodeError as error:
      raise ValueError(f"{self._file} is damaged: the text at byte {at}: {error}") from None

  def value(self) -> Any:
    """Returns a number, a truth, a text, a list of texts, or an array of the rest."""
    kind = self.number("<I")
    if kind == _TEXT:
      return self.text()
    if kind == _ARRAY:
      return self._array()
    return self.number(self._code(kind))

  def count(self, smallest: int) -> int:
    """Returns a number of things of at least `smallest` bytes each."""
    at, count = self.offset, self.number("<Q")
    if count * smallest > self._size - self.offset:
      raise ValueError(
        f"{self._file} was cut or is damaged: at byte {at} it announces {count} values, for which "
        f"the {self._size - self.offset} bytes that follow are too few"
      )
    return count

  def _array(self) -> list[str] | np.ndarray:
    kind = self.number("<I")
    if kind == _TEXT:
      return self._texts(self.count(_MIN_TEXT))
    dtype = np.dtype(self._code(kind))
    return np.frombuffer(self.read(self.count(dtype.itemsize) * dtype.itemsize), dtype)

  def _texts(self, count: int) -> list[str]:
    """Returns texts as `text` does, without its four calls for each of a vocabulary's 100,000."""
    out = []
    while len(out) < count:
      buffer, at = self._buffer, self.offset
      try:
        while len(out) < count:
          begin = at + _LENGTH.size
          end = begin + _LENGTH.unpack_from(buffer, at)[0]
          if end > len(buffer):
            break
          out.append(buffer[begin:end].decode())
          at = end
      except (struct.error, UnicodeDecodeError):
        pass  # the end of the buffer, or a broken text: `text` knows what to do
      self.offset = at
      if len(out) < count:
        out.append(self.text())
    return out

  def _code(self, kind: int) -> str:
    if kind not in _SCALARS:
      raise ValueError(
        f"{self._file} is damaged: before byte {self.offset} it has a value of the type {kind}, "
        "which the format lacks (or, within an array, does not use)"
      )
    return _SCALARS[kind]

  def _skip(self, length: int) -> int:
    """Moves over the next bytes, which are then in the buffer, and returns where they begin."""
    begin, end = self.offset, self.offset + length
    if end > len(self._buffer):
      self._fill(end)
    self.offset = end
    return begin

  def _fill(self, end: int) -> None:
    if end > self._size:
      raise ValueError(
        f"{self._file} was cut or is damaged: its header goes on to byte {end}, but the file ends "
        f"at {self._size}"
      )
    if end > _MAX_HEADER:
      raise ValueError(f"{self._file} is damaged: its header has more than {_MAX_HEADER} bytes")
    more = max(end - len(self._buffer), len(self._buffer), _WINDOW)
    self._buffer += self._stream.read(more)
    if end > len(self._buffer):
      raise ValueError(f"{self._file} ended while its header was read")
