"""Files of an export, written whole or not at all, with tensors one at a time."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtjax.checkpoints.reading import DTYPES, INDEX, SINGLE

WEIGHTS = ("model*.safetensors", INDEX)  # patterns of all that write_tensors may write

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@contextlib.contextmanager
def new_files(folder: Path, replaces: Sequence[str]) -> Generator[Path]:
  """Yields a place for files, which are moved to the folder if the block ends without an error.

  A new folder appears with all of them at once. In an existing one, files that match the patterns
  `replaces` are removed and the new ones come one by one; config.json is removed first and comes
  back last, so that a folder in which this was interrupted is no model rather than half of each.
  """
  # Inside an existing folder: it may be a file system of its own, or its parent read-only.
  name = f".{folder.name}.{os.getpid()}.writing"
  place = folder / name if folder.is_dir() else folder.parent / name
  shutil.rmtree(place, ignore_errors=True)
  place.mkdir(parents=True)
  try:
    yield place
    if place.parent != folder:
      os.replace(place, folder)
      return
    names = sorted((f.name for f in place.iterdir()), key=lambda name: name == "config.json")
    for pattern in ("config.json", *replaces):
      for old in folder.glob(pattern):
        old.unlink()
    for name in names:
      os.replace(place / name, folder / name)
  finally:
    shutil.rmtree(place, ignore_errors=True)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
  file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tensors(
  folder: Path,
  declared: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
  tensors: Iterable[tuple[str, np.ndarray]],
  shard_bytes: int,
) -> None:
  """Writes model.safetensors, or an index and shards of at most `shard_bytes` (or one tensor).

  `tensors` yields contiguous arrays in the order of `declared`, which gives their dtypes and
  shapes. The safetensors library's writer is not used: it needs all tensors in memory at once.
  """
  shards = _shards(declared, shard_bytes)
  values = iter(tensors)
  places, total = {}, 0
  for number, names in enumerate(shards, 1):
    file = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
    with open(folder / file, "wb") as stream:
      stream.write(header_of({name: declared[name] for name in names}))
      for name in names:
        got, value = next(values)
        if got != name or (value.dtype, value.shape) != declared[name]:
          raise AssertionError(f"{got} {value.dtype} {value.shape} for {name} {declared[name]}")
        stream.write(np.ascontiguousarray(value).view(np.uint8).data)
        total += value.nbytes
        places[name] = file
      stream.flush()
      os.fsync(stream.fileno())
  if len(shards) > 1:
    write_json(folder / INDEX, dict(metadata=dict(total_size=total), weight_map=places))


def _shards(declared, shard_bytes) -> list[list[str]]:
  if shard_bytes < 1:
    raise ValueError(f"shard_bytes must be at least 1, got {shard_bytes}")
  shards, free = [[]], shard_bytes
  for name, tensor in declared.items():
    size = _size(tensor)
    if shards[-1] and size > free:
      shards.append([])
      free = shard_bytes
    shards[-1].append(name)
    free -= size
  return shards


def header_of(declared: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> bytes:
  """Returns the header of a file with these tensors, in this order."""
  entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  at = 0
  for name, (dtype, shape) in declared.items():
    end = at + _size((dtype, shape))
    entries[name] = dict(dtype=_NAMES[dtype], shape=list(shape), data_offsets=[at, end])
    at = end
  text = json.dumps(entries, separators=(",", ":")).encode()
  # Tensors begin at a multiple of eight bytes, as the format requires.
  text += b" " * (-len(text) % 8)
  return len(text).to_bytes(8, "little") + text


def _size(tensor) -> int:
  dtype, shape = tensor
  return math.prod(shape) * dtype.itemsize
