"""A file of answers to which each is appended, and which a later run continues."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtjax.evaluate.tasks.protocol import Record
from mtjax.models import Params


def data_identity(path: str | Path) -> dict[str, Any]:
  """Returns settings for `resumed` that identify a file's content."""
  with open(path, "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  return dict(data_bytes=Path(path).stat().st_size, data_sha256=digest)


def params_identity(params: Params) -> int:
  """Returns a number that identifies a model's weights: a checksum of names and values."""
  out = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    out = zlib.crc32(jax.tree_util.keystr(path).encode(), out)
    out = zlib.crc32(np.asarray(leaf).tobytes(), out)
  return out


def resumed(path: str | Path, settings: Mapping[str, Any]) -> list[Record]:
  """Reads the records of an earlier run from a file of JSON lines, whose first line is `settings`.

  Creates the file if it does not exist, and drops a line that was cut off. Raises ValueError, and
  leaves the file as it is, for records of other settings and for any other file.
  """
  file, header = Path(path), json.dumps(settings) + "\n"
  text = file.read_text(encoding="utf-8") if file.is_file() else ""
  if header.startswith(text):
    text = header
  elif not text.startswith(header):
    raise ValueError(f"{path} holds {_other(text, json.loads(header))}: name another file")
  kept = text[: text.rfind("\n") + 1]
  file.write_text(kept, encoding="utf-8")
  return [json.loads(line) for line in kept.split("\n")[1:-1]]


def append(path: str | Path, record: Record) -> None:
  """Appends one line."""
  with open(path, "a", encoding="utf-8") as file:
    file.write(json.dumps(record) + "\n")


def _other(text: str, settings: dict[str, Any]) -> str:
  """Says what a file holds in place of the answers of these settings."""
  first = text.partition("\n")[0]
  try:
    other = json.loads(first)
    names = [name for name in {**other, **settings} if other.get(name) != settings.get(name)]
  except (ValueError, TypeError):
    names = []
  if not names:
    return f"no answers of these settings but {first[:400]!r}"
  each = (f"{name} {other.get(name)!r}, not {settings.get(name)!r}" for name in names)
  return f"answers of other settings ({'; '.join(each)})"
