"""Files and texts that must be the same in all processes, compared by hashes."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtjax.hosts.agreement import check_equal, gather
from mtjax.hosts.who import count

_BLOCK = 1 << 20  # bytes at the beginning and at the end of a file that are compared

_SEPARATORS = re.compile("[:=,]")


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


def check_same_named_files(what: str, settings: Mapping[str, Any]) -> None:
  """Raises ValueError in every process unless files that JSON settings name are the same.

  Every process must call it. A setting may be the path of a file, or a text that has one among its
  own settings, as "rule:file=PATH". A file that a process lacks is another one. `what` is a noun,
  as in "file of the config".
  """
  if count() > 1:
    plain = json.loads(json.dumps(settings, default=dict))
    words = {word for text in _texts(plain) for word in (text, *_SEPARATORS.split(text))}
    paths = {word: path for word in words if (path := _file_of(word)) is not None}
    own = {word: _hash_of_files(path) for word, path in paths.items()}
    check_equal(what, own)


def _texts(value: Any) -> Iterator[str]:
  if isinstance(value, str):
    yield value
  elif isinstance(value, dict):
    yield from (text for inner in value.values() for text in _texts(inner))
  elif isinstance(value, list):
    yield from (text for inner in value for text in _texts(inner))


def _file_of(text: str) -> Path | None:
  """Returns the path that a text spells, if there is such a file; else None."""
  try:
    path = Path(text).expanduser()
    return path if path.is_file() else None
  except (OSError, ValueError, RuntimeError):  # too long for a path, with a zero, or ~ and no user
    return None


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
