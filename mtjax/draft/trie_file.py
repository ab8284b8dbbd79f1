"""Files of n-gram counts: written at once or not at all, refused when they do not fit."""

import os
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mtjax.draft.trie_counts import Counts

_VERSION = 1


def write(path: str | Path, counts: Counts, vocab_size: int, vocabulary: str) -> None:
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
    os.replace(new, path)
  except BaseException:
    new.unlink(missing_ok=True)
    raise


def read(path: str | Path, into: Counts, vocab_size: int, vocabulary: str) -> None:
  """Adds a file's counts, within the capacities of `into`.

  Raises ValueError for another vocabulary and for files that are damaged or something else.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    version = int(arrays["version"])
    kind = int(arrays["vocab_size"]), str(arrays["vocabulary"])
    nodes = [arrays[name].tolist() for name in ("depth", "token", "count")]
    rows = list(zip(*nodes, strict=True))
  except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
    raise ValueError(f"{str(path)!r} is no file of a trie store, or a damaged one") from None
  if version != _VERSION:
    raise ValueError(f"{str(path)!r} has version {version}; this program reads {_VERSION}")
  if kind != (vocab_size, vocabulary):
    raise ValueError(
      f"{str(path)!r} is of another vocabulary ({kind[0]} tokens, {kind[1] or 'unnamed'}; here "
      f"{vocab_size}, {vocabulary or 'unnamed'}): its tokens mean nothing here"
    )
  try:
    if any(not 0 <= token < vocab_size for _, token, _ in rows):
      raise ValueError("token ids outside the vocabulary")
    into.restore(rows)
  except ValueError as error:
    raise ValueError(f"{str(path)!r} is damaged: {error}") from None
