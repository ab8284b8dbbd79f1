"""Public prompt sets by name, from the files their authors publish: what speed is measured on."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def _specbench(record: Record) -> str:
  return record["turns"][0]


def _pycode(record: Record) -> str:
  """The first half of a module: the second half is what a completion would be compared with."""
  return record["text"][: len(record["text"]) // 2]


def _toolcall(record: Record) -> str:
  """Tools, then the turns up to the last call of a tool: the call is what follows."""
  turns = record["conversations"]
  last = max((i for i, t in enumerate(turns) if t["from"] == "function_call"), default=len(turns))
  lines = [f"tools: {record['tools']}"] if record.get("tools") else []
  lines += [f"{turn['from']}: {turn['value']}" for turn in turns[:last]]
  return "\n".join([*lines, "function_call:"])


def _gsm8k(record: Record) -> str:
  return f"Question: {record['question']}\nAnswer:"


def _humaneval(record: Record) -> str:
  return record["prompt"]


# Name -> (folder of the files, record -> prompt). Spec-Bench is 2401.07851, its first turns.
SETS: dict[str, tuple[str, Callable[[Record], str]]] = {
  "specbench": ("specbench", _specbench),
  "pycode": ("pycode", _pycode),
  "toolcall": ("toolcall", _toolcall),
  "gsm8k": ("gsm8k", _gsm8k),
  "humaneval": ("humaneval", _humaneval),
}


def prompts(root: str | Path, name: str, count: int) -> list[str]:
  """`count` prompts spread evenly over the set `name` below `root`, in file order.

  Reads every .jsonl and .jsonl.gz of the folder but training splits that have a test split
  beside them. Raises ValueError for an unknown set or one with fewer prompts, FileNotFoundError
  for a folder without files.
  """
  if name not in SETS:
    raise ValueError(f"unknown prompt set {name!r}; there is: {', '.join(SETS)}")
  folder, of_record = SETS[name]
  found = [text for record in _records(Path(root) / folder) if (text := of_record(record)).strip()]
  if len(found) < count:
    raise ValueError(f"{name} in {root} has {len(found)} prompts, {count} were asked for")
  return [found[index * len(found) // count] for index in range(count)]


def _records(folder: Path) -> Iterator[Record]:
  files = sorted((*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")))
  if not files:
    raise FileNotFoundError(f"there is no .jsonl or .jsonl.gz file in {str(folder)!r}")
  tests = [file for file in files if "test" in file.name]
  for file in tests or files:
    read = gzip.open if file.suffix == ".gz" else open
    with read(file, "rt", encoding="utf-8") as lines:
      yield from (json.loads(line) for line in lines if line.strip())


def last_tokens(ids: Sequence[int], most: int) -> list[int]:
  """The end of a prompt: what a model with a short context is given of a long one."""
  return list(ids[-most:])
