"""The header of a safetensors file, checked before any byte of the file becomes a weight."""

import dataclasses
import json
import math
import reprlib
from pathlib import Path
from typing import Any

# The limits of the safetensors library and of NumPy's arrays.
_MAX_HEADER = 100_000_000  # bytes
_MAX_RANK = 64

# The format's dtypes -> bits per number.
_BITS = {
  "BOOL": 8,
  "F4": 4,
  "F6_E2M3": 6,
  "F6_E3M2": 6,
  "U8": 8,
  "I8": 8,
  "F8_E5M2": 8,
  "F8_E4M3": 8,
  "F8_E8M0": 8,
  "F8_E4M3FNUZ": 8,
  "F8_E5M2FNUZ": 8,
  "I16": 16,
  "U16": 16,
  "F16": 16,
  "BF16": 16,
  "I32": 32,
  "U32": 32,
  "F32": 32,
  "C64": 64,
  "F64": 64,
  "I64": 64,
  "U64": 64,
}


@dataclasses.dataclass(frozen=True)
class Tensor:
  """The place of a tensor in a file."""

  file: Path
  dtype: str  # as the file spells it, "BF16" for example
  shape: tuple[int, ...]
  offset: int  # of its first byte in the file


@dataclasses.dataclass(frozen=True)
class _Entry:
  dtype: str
  shape: tuple[int, ...]
  start: int  # byte of the data, which follows the header
  stop: int


def read_header(file: Path) -> dict[str, Tensor]:
  """Returns the tensors of one file.

  They must fill the data that follows the header, each with as many bytes as its dtype and shape
  need, without overlaps and gaps (the rules of the safetensors library). Raises ValueError that
  names the file and the tensor for anything else, and for a file that was cut.
  """
  size = file.stat().st_size
  with open(file, "rb") as stream:
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > size - 8:
      raise ValueError(f"{file} is no safetensors file, or was cut: its header is not whole")
    if length > _MAX_HEADER:
      raise ValueError(f"{file} has a header of {length} bytes, more than {_MAX_HEADER}")
    header = _parsed(file, stream.read(length))
  header.pop("__metadata__", None)
  entries = {name: _entry(file, name, content) for name, content in header.items()}
  begin = 8 + length
  _check_ranges(file, entries, size - begin)
  return {
    name: Tensor(file, entry.dtype, entry.shape, begin + entry.start)
    for name, entry in entries.items()
  }


def _parsed(file: Path, header: bytes) -> dict[str, Any]:
  try:
    content = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{file} has a broken safetensors header: {error}") from None
  if not isinstance(content, dict):
    raise ValueError(f"{file} has a broken safetensors header: it is no JSON object")
  return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  out = {}
  for name, value in pairs:
    if name in out:
      raise ValueError(f"{name} is there twice")
    out[name] = value
  return out


def _entry(file: Path, name: str, content: Any) -> _Entry:
  where = f"{file} has a broken safetensors header: {name}"
  if not isinstance(content, dict) or not {"dtype", "shape", "data_offsets"} <= content.keys():
    raise ValueError(f"{where} must have a dtype, a shape and data_offsets")
  dtype, shape, offsets = (content[key] for key in ("dtype", "shape", "data_offsets"))
  if not isinstance(dtype, str) or dtype not in _BITS:
    raise ValueError(f"{where} has the dtype {_short(dtype)}, which is none of {', '.join(_BITS)}")
  if not _are_sizes(shape) or len(shape) > _MAX_RANK:
    raise ValueError(
      f"{where} has the shape {_short(shape)}; it must be a list of at most {_MAX_RANK} whole "
      "numbers from 0"
    )
  if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
    raise ValueError(
      f"{where} has the data_offsets {_short(offsets)}; they must be two whole numbers from 0, of "
      "the first byte and of the one after the last"
    )
  start, stop = offsets
  if (stop - start) * 8 != math.prod(shape) * _BITS[dtype]:
    raise ValueError(
      f"{file} is damaged: {name} has {_short(stop - start)} bytes for {dtype} {_short(shape)}"
    )
  return _Entry(dtype, tuple(shape), start, stop)


def _are_sizes(value: Any) -> bool:
  """Returns True for a list of whole numbers from 0; JSON's true and 1.0 are none."""
  return isinstance(value, list) and all(type(x) is int and x >= 0 for x in value)


def _check_ranges(file: Path, entries: dict[str, _Entry], size: int) -> None:
  last = max(entries, key=lambda name: entries[name].stop, default=None)
  end = 0 if last is None else entries[last].stop
  if end != size:
    ends = "" if last is None else f", where {last} ends"
    raise ValueError(
      f"{file} has {size} bytes after its header and must have {_short(end)}{ends}: it was cut or "
      "is damaged"
    )
  at, before = 0, "the header"
  for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
    if entry.start < at:
      raise ValueError(
        f"{file} is damaged: {name} begins at byte {entry.start} of the data, before {before} "
        f"ends, at byte {at}"
      )
    if entry.start > at:
      raise ValueError(
        f"{file} is damaged: {name} begins at byte {entry.start} of the data, and what lies "
        f"between it and the end of {before}, at byte {at}, is no tensor"
      )
    at, before = entry.stop, name


def _short(value: Any) -> str:
  """Returns a repr that is no longer than a line, whatever a file holds."""
  return reprlib.repr(value)
