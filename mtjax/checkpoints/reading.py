"""safetensors files, read by rows.

The safetensors library maps whole files into memory, and pages that were touched stay counted as
the process's own until the file is closed: a second copy of the model. This reader takes what is
asked for into one small buffer. It checks every header before anything is read.
"""

import contextlib
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

DTYPES = {
  "F32": np.dtype(np.float32),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "F16": np.dtype(np.float16),
}

# Buffers that older versions of torch models saved beside their weights.
_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|(^|\.)h\.\d+\.attn\.(masked_)?bias)$")


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where a tensor lies."""

  file: Path
  dtype: str  # the file's name for it, as in "BF16"
  shape: tuple[int, ...]
  offset: int  # in the file, of its first byte


class StoredTensors(contextlib.AbstractContextManager):
  """The tensors of a folder's safetensors files, by name, without buffers; single or sharded.

  `source` is the file that errors name: the one file, or the index of several. Raises
  FileNotFoundError when files are missing, ValueError when one is broken; both name it.
  """

  def __init__(self, folder: Path):
    self.source = folder / (INDEX if (folder / INDEX).is_file() else SINGLE)
    self.tensors: dict[str, Tensor] = {}
    self._files: dict[Path, Any] = {}
    self._scratch = np.empty(0, np.uint8)
    for file in _files(folder):
      for name, tensor in read_header(file).items():
        if name in self.tensors:
          raise ValueError(f"{name} is in {self.tensors[name].file.name} and in {file.name}")
        if not _BUFFERS.search(name):
          self.tensors[name] = tensor

  def dtype(self, name: str) -> np.dtype:
    """Raises ValueError for a dtype that is no float of 16 or 32 bits."""
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
    """tensor[start:stop], valid until the next call: a view of one buffer."""
    tensor, size = self.tensors[name], self.row_bytes(name)
    if tensor.file not in self._files:
      self._files[tensor.file] = open(tensor.file, "rb", buffering=0)  # noqa: SIM115
    wanted = (stop - start) * size
    if self._scratch.size < wanted:
      self._scratch = np.empty(wanted, np.uint8)
    buffer, got = self._scratch.data[:wanted], 0
    self._files[tensor.file].seek(tensor.offset + start * size)
    while got < wanted:
      more = self._files[tensor.file].readinto(buffer[got:])
      if not more:
        raise ValueError(f"{tensor.file} ended while {name} was read")
      got += more
    return self._scratch[:wanted].view(self.dtype(name)).reshape(-1, *tensor.shape[1:])

  def __exit__(self, *exception):
    for file in self._files.values():
      file.close()


def read_header(file: Path) -> dict[str, Tensor]:
  """Tensors of one file. Raises ValueError that names the file when it is cut or no safetensors."""
  size = file.stat().st_size
  with open(file, "rb") as stream:
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > size - 8:
      raise ValueError(f"{file} is no safetensors file, or was cut: its header is not whole")
    try:
      header = json.loads(stream.read(length))
      header.pop("__metadata__", None)
      found = {
        name: (entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
        for name, entry in header.items()
      }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise ValueError(f"{file} has a broken safetensors header: {error}") from None
  end = 8 + length + max((stop for _, _, _, stop in found.values()), default=0)
  if end != size:
    raise ValueError(f"{file} has {size} bytes and must have {end}: it was cut or is damaged")
  for name, (dtype, shape, start, stop) in found.items():
    if dtype in DTYPES and stop - start != math.prod(shape) * DTYPES[dtype].itemsize:
      raise ValueError(f"{file} is damaged: {name} has {stop - start} bytes for {dtype} {shape}")
  return {
    name: Tensor(file, dtype, shape, 8 + length + start)
    for name, (dtype, shape, start, _) in found.items()
  }


def read_json(file: Path) -> dict[str, Any]:
  """A JSON object. Raises FileNotFoundError or ValueError that names the file."""
  try:
    found = json.loads(file.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{file} is no JSON: {error}") from None
  if not isinstance(found, dict):
    raise ValueError(f"{file} must hold a JSON object, got {type(found).__name__}")
  return found


def _files(folder: Path) -> list[Path]:
  index = folder / INDEX
  if index.is_file():
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
      raise ValueError(f"{index} has no weight_map")
    names = sorted(set(places.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
      raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names")
    return [folder / name for name in names]
  if (folder / SINGLE).is_file():
    return [folder / SINGLE]
  others = sorted(f.name for f in folder.glob("*") if f.suffix in (".bin", ".pt", ".pth", ".gguf"))
  hint = f"; it holds {', '.join(others)}: save it as safetensors first" if others else ""
  raise FileNotFoundError(f"{folder} holds neither {SINGLE} nor {INDEX}{hint}")
