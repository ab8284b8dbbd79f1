"""A file of answers that grows as they come, and that a later run goes on with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtjax.evaluate.infilling.protocol import Record


def resumed(path: str | Path, settings: Mapping[str, Any]) -> list[Record]:
  """The records that an earlier run left in a file of JSON lines, whose first line is `settings`.

  Begins the file where there is none, and drops a line that was cut off. ValueError, and the file
  stays as it is, for the records of other settings and for any other file.
  """
  file, header = Path(path), json.dumps(settings) + "\n"
  text = file.read_text(encoding="utf-8") if file.is_file() else ""
  if header.startswith(text):
    text = header
  elif not text.startswith(header):
    first = text.partition("\n")[0][:400]
    raise ValueError(f"{path} holds no answers of these settings but {first!r}: name another file")
  kept = text[: text.rfind("\n") + 1]
  file.write_text(kept, encoding="utf-8")
  return [json.loads(line) for line in kept.split("\n")[1:-1]]


def append(path: str | Path, record: Record) -> None:
  """One more line."""
  with open(path, "a", encoding="utf-8") as file:
    file.write(json.dumps(record) + "\n")
