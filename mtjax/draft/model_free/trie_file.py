"""Files of n-gram counts: written at once or not at all, refused when they do not fit."""

import io
import os
import threading
from pathlib import Path

import numpy as np

from mtjax.draft.model_free.trie_counts import Counts

_VERSION = 1

# What tells a file from one that replaced it: inode, bytes, time of writing.
Stamp = tuple[int, int, int]


def stamp(path: str | Path) -> Stamp | None:
  """Returns the stamp of a file, or None if there is no such file."""
  try:
    return _stamp(os.stat(path))
  except FileNotFoundError:
    return None


def _stamp(status: os.stat_result) -> Stamp:
  return status.st_ino, status.st_size, status.st_mtime_ns


def write(path: str | Path, counts: Counts, vocab_size: int, vocabulary: str) -> Stamp:
  """Writes counts as .npz; a file of that name is replaced at once or not at all."""
  nodes = np.array(list(counts.nodes_in_order()), np.float64).reshape(-1, 3)
  path = Path(path)
  new = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
  try:
    with open(new, "xb") as file:
      np.savez_compressed(
        file,
        version=_VERSION,
        vocab_size=vocab_size,
        vocabulary=vocabulary,
        depth=nodes[:, 0].astype(np.int32),
        token=nodes[:, 1].astype(np.int32),
        count=nodes[:, 2],
      )
      file.flush()
      written = _stamp(os.fstat(file.fileno()))
    os.replace(new, path)
  except BaseException:
    new.unlink(missing_ok=True)
    raise
  return written


def read(path: str | Path, into: Counts, vocab_size: int, vocabulary: str) -> Stamp:
  """Adds a file's counts, within the capacities of `into`.

  Raises ValueError for another vocabulary and for files that are damaged or something else.
  """
  with open(path, "rb") as file:  # errors of the disk name the file by themselves
    result, content = _stamp(os.fstat(file.fileno())), io.BytesIO(file.read())
  try:
    with np.load(content, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    version = int(arrays["version"])
    kind = int(arrays["vocab_size"]), str(arrays["vocabulary"])
    columns = [arrays[name] for name in ("depth", "token", "count")]
    if [(x.ndim, x.dtype.kind) for x in columns] != [(1, "i"), (1, "i"), (1, "f")]:
      raise ValueError("these are not the arrays that were written")
    rows = list(zip(*(x.tolist() for x in columns), strict=True))
  except Exception:  # damaged bytes raise a dozen kinds in zipfile, zlib and numpy, MemoryError too
    raise ValueError(f"{str(path)!r} is not a file of a trie store, or it is damaged") from None
  if version != _VERSION:
    raise ValueError(f"{str(path)!r} has version {version}; this program reads {_VERSION}")
  if kind != (vocab_size, vocabulary):
    raise ValueError(
      f"{str(path)!r} has another vocabulary ({kind[0]} tokens, {kind[1] or 'unnamed'}; here "
      f"{vocab_size}, {vocabulary or 'unnamed'}): its tokens mean nothing here"
    )
  try:
    if any(not 0 <= token < vocab_size for _, token, _ in rows):
      raise ValueError("token ids outside the vocabulary")
    into.restore(rows)
  except ValueError as error:
    raise ValueError(f"{str(path)!r} is damaged: {error}") from None
  return result
