"""Text and JSON from files, gzipped or not, with errors that name the file."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# The errors of reading bytes that are no text, no gzip file, or only the beginning of one.
UNREADABLE = (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error)

# Editors and shells on Windows begin a file with it; if files were joined, lines may begin with it.
BYTE_ORDER_MARK = "\ufeff"


def read_text(path: str | Path) -> str:
  """Returns the text of a file, gzipped or not, without a byte order mark.

  Pipes are files, too. Raises FileNotFoundError, IsADirectoryError, and ValueError for a file that
  is no text.
  """
  if not Path(path).exists():
    raise FileNotFoundError(f"there is no file {str(path)!r}")
  if Path(path).is_dir():
    raise IsADirectoryError(f"{str(path)!r} is a folder, but a file is needed")
  opened = gzip.open if str(path).endswith(".gz") else open
  try:
    with opened(path, "rt", encoding="utf-8-sig") as file:
      return file.read()
  except UNREADABLE as error:
    raise ValueError(f"{path} is no text: {error}") from None


def parse_json(text: str, where: str) -> Any:
  """Returns the value of a JSON text. Raises ValueError that begins with `where` for other text.

  Text that is nested deeper than Python recurses is refused in the same way.
  """
  try:
    return json.loads(text.removeprefix(BYTE_ORDER_MARK))
  except ValueError as error:
    raise ValueError(f"{where}: not JSON ({error})") from None
  except RecursionError:
    raise ValueError(f"{where}: JSON that is nested too deeply to be read") from None


def read_object(path: Path) -> dict[str, Any]:
  """Returns the JSON object of a file, or an empty one if there is no file.

  Raises ValueError that names the file for anything else.
  """
  if not path.is_file():
    return {}
  value = parse_json(read_text(path), str(path))
  if not isinstance(value, dict):
    raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}")
  return value


def whole_text(text: str, where: str) -> str:
  r"""Returns `text` if UTF-8 can express it. Raises ValueError that begins with `where` otherwise.

  JSON may hold one half of a surrogate pair ("\ud83d"), which is no character; it usually comes
  from a text that was cut at a length in UTF-16.
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
  """Yields (line, record) of JSON lines with text in all `fields`. Raises ValueError for others."""
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
