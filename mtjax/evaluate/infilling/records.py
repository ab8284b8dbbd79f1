"""A file of answers that grows as they come, and that a later run goes on with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtjax.evaluate.infilling.protocol import Record


def resumed(path: str | Path, settings: Mapping[str, Any]) -> list[Record]:
  """The records that an earlier run left in a file of JSON lines, of which the first is `settings`.

  Starts the file where there is none. A line that was cut off is dropped. ValueError for the
  records of other settings.
  """
  file = Path(path)
  if not file.is_file() or not file.stat().st_size:
    file.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    return []
  text = file.read_text(encoding="utf-8")
  kept = text[: text.rfind("\n") + 1]
  file.write_text(kept, encoding="utf-8")
  first, *records = [json.loads(line) for line in kept.split("\n")[:-1]] or [None]
  if first != json.loads(json.dumps(settings)):
    raise ValueError(f"{path} holds the answers of other settings, {first}: name another file")
  return records


def append(path: str | Path, record: Record) -> None:
  """One more line."""
  with open(path, "a", encoding="utf-8") as file:
    file.write(json.dumps(record) + "\n")
