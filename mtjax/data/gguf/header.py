"""The header of a GGUF file: metadata by name, and where each tensor is."""

import dataclasses
import functools
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mtjax.data.gguf.cursor import Cursor

MAGIC = b"GGUF"

_VERSIONS = (2, 3)  # the same layout; version 1 had counts of 32 bits
_ALIGNMENT = 32  # bytes, unless general.alignment says otherwise
_MAX_RANK = 4  # GGML_MAX_DIMS
_MIN_FIELD = 8 + 4 + 1  # bytes: an empty name, a type and the smallest value
_MIN_TENSOR = 8 + 4 + 4 + 8  # bytes: an empty name, no size, a type and an offset

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TensorPlace:
  """A tensor as the header describes it; nothing is checked against the data yet."""

  shape: tuple[int, ...]  # the last size is that of a contiguous row
  kind: int  # ggml's number of the type
  offset: int  # of its first byte in the file


@dataclasses.dataclass(frozen=True)
class GgufHeader:
  """The metadata of one file. A missing or wrong value is a ValueError that names file and key."""

  file: Path
  values: Mapping[str, Any]
  tensors: Mapping[str, TensorPlace]
  size: int  # bytes of the file
  alignment: int

  def whole(self, key: str, otherwise: int | None = None) -> int:
    """Returns a whole number. A list with one number for all layers counts as that number."""
    return self._get(key, otherwise, "a whole number", _as_whole)

  def number(self, key: str, otherwise: float | None = None) -> float:
    return self._get(key, otherwise, "a number", lambda x: float(x) if _is_number(x) else None)

  def flag(self, key: str, otherwise: bool | None = None) -> bool:
    return self._get(key, otherwise, "true or false", lambda x: x if isinstance(x, bool) else None)

  def text(self, key: str, otherwise: str | None = None) -> str:
    return self._get(key, otherwise, "a text", lambda x: x if isinstance(x, str) else None)

  def texts(self, key: str, otherwise: list[str] | None = None) -> list[str]:
    return self._get(key, otherwise, "a list of texts", _as_texts)

  def numbers(self, key: str, otherwise: np.ndarray | None = None) -> np.ndarray:
    return self._get(
      key, otherwise, "a list of numbers", lambda x: x if isinstance(x, np.ndarray) else None
    )

  def _get(self, key: str, otherwise: T | None, meaning: str, read: Callable[[Any], T | None]) -> T:
    if key not in self.values:
      if otherwise is None:
        raise ValueError(f"{self.file} lacks {key}, which must be {meaning}")
      return otherwise
    value = read(self.values[key])
    if value is None:
      raise ValueError(
        f"{key} of {self.file} must be {meaning}, got {reprlib.repr(self.values[key])}"
      )
    return value


def read_header(file: Path) -> GgufHeader:
  """Returns the header of a file (the format's page: ggml/docs/gguf.md).

  Raises FileNotFoundError, and ValueError that names the file for another format or version, for
  the byte order of other machines, for a part of a split model, and for a header that was cut or
  is damaged. The tensors' types and sizes are checked where they are read
  (`mtjax.checkpoints.gguf`): a file that holds only a vocabulary has none.
  """
  file = Path(file)
  if not file.is_file():
    raise FileNotFoundError(f"there is no file {str(file)!r}")
  status = file.stat()
  return _read(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)  # a model's settings are read, then its tokenizer
def _read(file: Path, size: int, mtime: int) -> GgufHeader:
  del mtime
  with open(file, "rb", buffering=0) as stream:
    cursor = Cursor(file, stream, size)
    _check_beginning(file, cursor, size)
    count = cursor.count(_MIN_TENSOR)
    values = _read_values(file, cursor)
    alignment = values.get("general.alignment", _ALIGNMENT)
    if not _is_whole(alignment) or alignment < 1 or alignment & (alignment - 1):
      raise ValueError(f"general.alignment of {file} must be a power of two, got {alignment!r:.40}")
    places = _read_places(file, cursor, count)
  begin = -(-cursor.offset // alignment) * alignment
  tensors = {
    name: dataclasses.replace(place, offset=begin + place.offset) for name, place in places.items()
  }
  header = GgufHeader(file, values, tensors, size, alignment)
  _check_whole(header)
  return header


def _check_beginning(file: Path, cursor: Cursor, size: int) -> None:
  if size < len(MAGIC) or cursor.read(len(MAGIC)) != MAGIC:
    raise ValueError(f"{file} is no GGUF file: it does not begin with {MAGIC.decode()}")
  version = cursor.number("<I")
  if version and not version & 0xFFFF:
    raise ValueError(f"{file} has big-endian numbers; convert it to little-endian first")
  if version not in _VERSIONS:
    raise ValueError(
      f"{file} has version {version} of GGUF; known: {', '.join(map(str, _VERSIONS))}. Newer "
      "releases of llama.cpp write these"
    )


def _read_values(file: Path, cursor: Cursor) -> dict[str, Any]:
  values: dict[str, Any] = {}
  for _ in range(cursor.count(_MIN_FIELD)):
    key = cursor.text()
    if key in values:
      raise ValueError(f"{file} is damaged: it has {reprlib.repr(key)} twice")
    values[key] = cursor.value()
  return values


def _read_places(file: Path, cursor: Cursor, count: int) -> dict[str, TensorPlace]:
  places: dict[str, TensorPlace] = {}
  for _ in range(count):
    name, rank = cursor.text(), cursor.number("<I")
    if rank > _MAX_RANK:
      raise ValueError(
        f"{file} is damaged: {reprlib.repr(name)} has {rank} sizes, more than {_MAX_RANK}"
      )
    # ggml writes the size of a contiguous row first.
    shape = tuple(reversed([cursor.number("<Q") for _ in range(rank)]))
    if name in places:
      raise ValueError(f"{file} is damaged: it has the tensor {reprlib.repr(name)} twice")
    places[name] = TensorPlace(shape, cursor.number("<I"), cursor.number("<Q"))
  return places


def _check_whole(header: GgufHeader) -> None:
  parts = header.whole("split.count", 1)
  if parts > 1:
    raise ValueError(
      f"{header.file} is one of {parts} parts of a model; join them first with llama.cpp's "
      "`llama-gguf-split --merge`"
    )


def _is_whole(value: Any) -> bool:
  return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _as_whole(value: Any) -> int | None:
  if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
    value = value[0]
  return int(value) if _is_whole(value) else None


def _is_number(value: Any) -> bool:
  return _is_whole(value) or isinstance(value, float | np.floating)


def _as_texts(value: Any) -> list[str] | None:
  # An empty array has no texts that would show that it is a list of them.
  return list(value) if isinstance(value, list) or np.size(value) == 0 else None
