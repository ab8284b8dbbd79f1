"""Text and JSON lines from a file, gzipped or not; what is wrong is said with the file's name."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# What reading raises for bytes that are no text, or no gzip file, or the beginning of one.
UNREADABLE = (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error)


def read_text(path: str | Path) -> str:
  """A text file, gzipped or not. Raises FileNotFoundError, and ValueError for what is no text."""
  if not Path(path).is_file():
    raise FileNotFoundError(f"there is no file {str(path)!r}")
  opened = gzip.open if str(path).endswith(".gz") else open
  try:
    with opened(path, "rt", encoding="utf-8") as file:
      return file.read()
  except UNREADABLE as error:
    raise ValueError(f"{path} is no text: {error}") from None


def read_records(path: str | Path, fields: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
  """(line, record) of JSON lines that hold text in all `fields`; ValueError for other lines."""
  for number, line in enumerate(read_text(path).split("\n"), 1):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
    except (ValueError, RecursionError):
      record = None
    if not isinstance(record, dict) or any(not isinstance(record.get(f), str) for f in fields):
      raise ValueError(f"{path}, line {number}: no JSON record with text in {', '.join(fields)}")
    yield number, record
