"""Files and texts that must be the same in all processes, compared by hashes."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mtjax.hosts.agreement import gather
from mtjax.hosts.who import count

_BLOCK = 1 << 20  # bytes at the beginning and at the end of a file that are compared


def check_same(what: str, value: Any) -> None:
  """Raises ValueError in every process unless all have the same JSON value, compared by its hash.

  Every process must call it. The message has the numbers of the processes and their hashes. `what`
  is plural, as in "prompts".
  """
  if count() > 1:
    text = json.dumps(value, sort_keys=True)
    _check_hashes(what, hashlib.sha256(text.encode()).hexdigest()[:12])


def check_same_files(what: str, path: str | Path) -> None:
  """Raises ValueError in every process unless a file, or the files of a folder, are the same.

  Every process must call it. Names, sizes, and a MiB at the beginning and at the end of each file
  are compared. A path that is no file and no folder, such as a hub id, is compared by its name.
  """
  if count() > 1:
    _check_hashes(what, _hash_of_files(Path(path).expanduser()))


def _check_hashes(what: str, own: str) -> None:
  hashes = gather(own)
  for index, other in enumerate(hashes):
    if other != hashes[0]:
      raise ValueError(
        f"process {index} has other {what} than process 0: their hash is {other} in process "
        f"{index}, {hashes[0]} in process 0. Give every process the same"
      )


def _hash_of_files(path: Path) -> str:
  files = sorted(path.iterdir()) if path.is_dir() else [path]
  digest = hashlib.sha256()
  for file in files:
    # A single file may have another name elsewhere; within a folder names have a meaning.
    digest.update(file.name.encode() if path.is_dir() or not path.is_file() else b"")
    if file.is_file():
      size = file.stat().st_size
      digest.update(size.to_bytes(8, "big"))
      with file.open("rb") as content:
        digest.update(content.read(_BLOCK))
        content.seek(max(0, size - _BLOCK))
        digest.update(content.read())
  return digest.hexdigest()[:12]
