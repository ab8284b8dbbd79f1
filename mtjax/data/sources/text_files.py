"""Text and JSON from files, gzipped or not; what is wrong is said with the file's name."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# What reading raises for bytes that are no text, or no gzip file, or the beginning of one.
UNREADABLE = (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error)

# Editors and shells on Windows begin a file with it; where files were joined, lines begin so too.
BYTE_ORDER_MARK = "\ufeff"


def read_text(path: str | Path) -> str:
  """Returns a text file, gzipped or not, without a byte order mark.

  Pipes are files, too. Raises FileNotFoundError, IsADirectoryError, and ValueError for what is no
  text.
  """
  if not Path(path).exists():
    raise FileNotFoundError(f"there is no file {str(path)!r}")
  if Path(path).is_dir():
    raise IsADirectoryError(f"{str(path)!r} is a folder, and a file is wanted")
  opened = gzip.open if str(path).endswith(".gz") else open
  try:
    with opened(path, "rt", encoding="utf-8-sig") as file:
      return file.read()
  except UNREADABLE as error:
    raise ValueError(f"{path} is no text: {error}") from None


def parse_json(text: str, where: str) -> Any:
  """Returns what a JSON text holds. Raises ValueError that begins with `where` for anything else.

  Text that is nested deeper than Python recurses is refused in the same way.
  """
  try:
    return json.loads(text.removeprefix(BYTE_ORDER_MARK))
  except ValueError as error:
    raise ValueError(f"{where}: not JSON ({error})") from None
  except RecursionError:
    raise ValueError(f"{where}: JSON that is nested too deeply to be read") from None


def read_object(path: Path) -> dict[str, Any]:
  """Returns the JSON object of a file; an empty one where there is no file.

  Raises ValueError that names the file for anything else.
  """
  if not path.is_file():
    return {}
  found = parse_json(read_text(path), str(path))
  if not isinstance(found, dict):
    raise ValueError(f"{path} must hold a JSON object, got {type(found).__name__}")
  return found


def whole_text(text: str, where: str) -> str:
  r"""Returns `text` if UTF-8 can express it. Raises ValueError that begins with `where` otherwise.

  JSON may hold one half of a surrogate pair ("\ud83d"), which is no character: as a rule, of a text
  that was cut at a length in UTF-16.
  """
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f"{where}: character {error.start} is U+{ord(text[error.start]):04X}, half of a surrogate "
      "pair and no text by itself; remove it, or write U+FFFD in its place"
    ) from None
  return text


def read_records(path: str | Path, fields: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
  """(line, record) of JSON lines that hold text in all `fields`; ValueError for other lines."""
  for number, line in enumerate(read_text(path).split("\n"), 1):
    if not line.strip():
      continue
    where = f"{path}, line {number}"
    try:
      record = parse_json(line, where)
    except ValueError:
      record = None
    if not isinstance(record, dict) or any(not isinstance(record.get(f), str) for f in fields):
      raise ValueError(f"{where}: no JSON record with text in {', '.join(fields)}")
    for field in fields:
      whole_text(record[field], where)
    yield number, record
