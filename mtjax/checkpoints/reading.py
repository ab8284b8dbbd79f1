"""safetensors files, read by rows.

The safetensors library maps whole files into memory, and touched pages count as the process's own
until the file is closed: a second copy of the model. This reader reads the requested rows into one
small buffer. It checks every header before anything else is read.
"""

import contextlib
import json
import math
import os
import re
import reprlib
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from mtjax.checkpoints.header import Tensor, read_header

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

DTYPES = {
  "F32": np.dtype(np.float32),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "F16": np.dtype(np.float16),
}

# Buffers that older torch models saved beside their weights.
_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|(^|\.)h\.\d+\.attn\.(masked_)?bias)$")


@runtime_checkable
class TensorSource(Protocol):
  """The tensors of a model on disk, by the names of transformers."""

  # Matching them with a config renames them (`mtjax.checkpoints.matching`).
  tensors: dict[str, Tensor]

  @property
  def source(self) -> Path:
    """The file that errors name."""
    ...

  @property
  def described_by(self) -> str:
    """What holds the settings, in the words of errors."""
    ...

  def dtype(self, name: str) -> np.dtype:
    """Returns the dtype in which rows are read. Raises ValueError for one that cannot be read."""
    ...

  def row_bytes(self, name: str) -> int:
    """Returns the bytes of a row as it is read."""
    ...

  def rows(self, name: str, start: int, stop: int) -> np.ndarray:
    """Reads tensor[start:stop], valid until the next call."""
    ...


class StoredTensors(contextlib.AbstractContextManager):
  """The tensors of a folder's safetensors files, by name, without buffers; single or sharded.

  `source` is the file that errors name: the one file, or the index of several. Raises
  FileNotFoundError for a missing file and ValueError for a broken one; both name it.
  """

  described_by = "config.json"

  def __init__(self, folder: Path):
    self.source = folder / (INDEX if (folder / INDEX).is_file() else SINGLE)
    self.tensors: dict[str, Tensor] = {}
    self._files: dict[Path, Any] = {}
    self._scratch = np.empty(0, np.uint8)
    for file in _files(folder):
      for name, tensor in read_header(file).items():
        if name in self.tensors:
          raise ValueError(f"{name} is in {self.tensors[name].file} and in {file.name}")
        if not _BUFFERS.search(name):
          self.tensors[name] = tensor

  def dtype(self, name: str) -> np.dtype:
    """Returns a tensor's dtype. Raises ValueError unless it is a float of 16 or 32 bits."""
    tensor = self.tensors[name]
    if tensor.dtype not in DTYPES:
      raise ValueError(
        f"{name} in {tensor.file} is {tensor.dtype}; only {', '.join(DTYPES)} can be read. "
        "Quantised models must be saved in one of these first"
      )
    return DTYPES[tensor.dtype]

  def row_bytes(self, name: str) -> int:
    return max(1, math.prod(self.tensors[name].shape[1:]) * self.dtype(name).itemsize)

  def rows(self, name: str, start: int, stop: int) -> np.ndarray:
    """Reads tensor[start:stop] as a view of one buffer, valid until the next call."""
    tensor, size = self.tensors[name], self.row_bytes(name)
    if tensor.file not in self._files:
      self._files[tensor.file] = open(tensor.file, "rb", buffering=0)  # noqa: SIM115
    length = (stop - start) * size
    if self._scratch.size < length:
      self._scratch = np.empty(length, np.uint8)
    buffer, got = self._scratch.data[:length], 0
    self._files[tensor.file].seek(tensor.offset + start * size)
    while got < length:
      more = self._files[tensor.file].readinto(buffer[got:])
      if not more:
        raise ValueError(f"{tensor.file} ended while {name} was read")
      got += more
    return self._scratch[:length].view(self.dtype(name)).reshape(-1, *tensor.shape[1:])

  def __exit__(self, *exception):
    for file in self._files.values():
      file.close()


def read_json(file: Path) -> dict[str, Any]:
  """Reads a JSON object. Raises FileNotFoundError or ValueError that names the file."""
  try:
    content = json.loads(file.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{file} is no JSON: {error}") from None
  if not isinstance(content, dict):
    raise ValueError(f"{file} must hold a JSON object, got {type(content).__name__}")
  return content


def _files(folder: Path) -> list[Path]:
  if (folder / INDEX).is_file():
    return [folder / name for name in _shards(folder / INDEX)]
  if (folder / SINGLE).is_file():
    return [folder / SINGLE]
  others = sorted(f.name for f in folder.glob("*") if f.suffix in (".bin", ".pt", ".pth"))
  hint = f"; it holds {', '.join(others)}: save it as safetensors first" if others else ""
  raise FileNotFoundError(f"{folder} holds neither {SINGLE} nor {INDEX}{hint}")


def _shards(index: Path) -> list[str]:
  """Returns the names of the files that an index lists, all of which must be in its folder."""
  places = read_json(index).get("weight_map")
  if not isinstance(places, dict) or not places:
    raise ValueError(f"{index} has no weight_map of names of tensors to names of files")
  for tensor, name in places.items():
    if not _is_inside(name):
      raise ValueError(
        f"{index} has {reprlib.repr(name)} as the file of {tensor}; it must be the name of a file "
        "in the same folder"
      )
  names = sorted(set(places.values()))
  missing = [name for name in names if not os.path.isfile(index.parent / name)]
  if missing:
    raise FileNotFoundError(f"{index.parent} lacks {', '.join(missing)}, which {index.name} names")
  return names


def _is_inside(name: Any) -> bool:
  """Returns True for the name of a file in a folder or below it.

  Only the name counts: the hub's cache keeps links to files elsewhere.
  """
  if not isinstance(name, str) or "\\" in name or not name.isprintable():
    return False
  path = PurePosixPath(name)
  return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
