"""Files of JSON that are kept between runs: versioned, readable, and never lost by a mistake."""

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_NUMBERS = re.compile(r"\[\s+([-+\d.eE,\s]+?)\s+\]")


class DamagedDocument(ValueError):
  """A file that should hold a document and does not; its message names the file and the fault."""


def read(
  path: str | Path,
  kind: str,
  version: int,
  of: Mapping[str, str],
  build: Callable[[Mapping[str, Any]], T],
) -> T:
  """Returns what `build` makes of the document in a file.

  kind, version: what the file must say that it is. of: what it must belong to, such as a model, as
  names and values; names that are left out are not compared. The file is left as it is, whatever
  happens. Raises FileNotFoundError if there is none; ValueError for a document that belongs to
  something else; DamagedDocument for a file that is no JSON, has a number that is not finite, or is
  another kind of document or of another version, and where `build` raises ValueError,
  ArithmeticError, KeyError, TypeError or AttributeError.
  """
  place = Path(path)
  try:
    text = place.read_text(encoding="utf-8")
    record = json.loads(text, parse_float=_finite, parse_constant=_finite)
  except (ValueError, RecursionError) as error:
    raise _damaged(place, f"it is no JSON that can be read ({error})") from None
  if not isinstance(record, dict) or record.get("kind") != kind:
    held = record.get("kind") if isinstance(record, dict) else type(record).__name__
    raise _damaged(place, f"it should hold {kind!r}, and holds {held!r}")
  if record.get("version") != version:
    raise _damaged(
      place, f"it has version {record.get('version')!r}, and this program reads version {version}"
    )
  try:
    names = {str(name): str(value) for name, value in record["of"].items()}
    document = build(record)
  except KeyError as error:
    raise _damaged(place, f"it lacks {error}") from None
  except (ValueError, ArithmeticError, TypeError, AttributeError) as error:
    raise _damaged(place, str(error)) from None
  check_same(names, of, f"{str(place)!r}, {kind},")
  return document


def write(
  path: str | Path,
  kind: str,
  version: int,
  of: Mapping[str, str],
  content: Mapping[str, Any],
  build: Callable[[Mapping[str, Any]], Any],
) -> None:
  """Writes a document whole or not at all; readers and other writers never see half a file.

  of: what the content belongs to, such as its model. A file that is there already is replaced only
  if it is whole (`build`, as in `read`), of the same kind and belongs to the same. Raises
  ValueError, and changes nothing, for a file that is anything else, and for content that `read`
  would refuse.
  """
  place, record = Path(path), dict(kind=kind, version=version, of=dict(of), **content)
  build(record)
  text = json.dumps(record, indent=2, allow_nan=False)
  try:
    read(place, kind, version, of, build)
  except FileNotFoundError:  # also where another program has just given it another name
    pass
  place.parent.mkdir(parents=True, exist_ok=True)
  # Rows of numbers on a line each, so that people can read tables.
  text = _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
  # Each writer has a file of its own until it is whole: the last one to finish wins.
  handle, new = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.", suffix=".new")
  try:
    with os.fdopen(handle, "w", encoding="utf-8") as file:
      file.write(text + "\n")
    os.replace(new, place)
  except BaseException:
    Path(new).unlink(missing_ok=True)
    raise


def check_same(of: Mapping[str, str], expected: Mapping[str, str], what: str) -> None:
  """Raises ValueError, with what differs, unless `of` says the same as `expected`, name by name.

  what: the document, as the message names it. Names that `expected` lacks are not compared.
  """
  wrong = [
    f"{name} {of.get(name)!r} and not {value!r}"
    for name, value in expected.items()
    if of.get(name) != value
  ]
  if wrong:
    raise ValueError(
      f"{what} is of something else: of {', '.join(wrong)}. Measure one of your own, in another "
      "file"
    )


def _finite(text: str) -> float:
  if not math.isfinite(number := float(text)):
    raise ValueError(f"{text} is no finite number")
  return number


def _damaged(place: Path, reason: str) -> DamagedDocument:
  return DamagedDocument(
    f"{str(place)!r} cannot be used: {reason}. It is left as it is: move it away, or give another "
    "file, to measure again"
  )
