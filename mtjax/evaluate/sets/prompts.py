"""Public prompt sets by name, from the files of their authors, for measurements of speed."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtjax.arguments import texts as as_texts
from mtjax.data.sources.text_files import parse_json, read_text
from mtjax.evaluate.sets.jobs import editing, summarising

Record = dict[str, Any]


def _specbench(record: Record) -> str:
  return record["turns"][0]


def _pycode(record: Record) -> str:
  """Returns the first half of a module, from which a completion can take names and habits."""
  return record["text"][: len(record["text"]) // 2]


def _toolcall(record: Record) -> str:
  """Returns the tools and the turns before the last call of a tool, so that the call comes next."""
  turns = record["conversations"]
  last = max((i for i, t in enumerate(turns) if t["from"] == "function_call"), default=len(turns))
  lines = [f"tools: {record['tools']}"] if record.get("tools") else []
  lines += [f"{turn['from']}: {turn['value']}" for turn in turns[:last]]
  return "\n".join([*lines, "function_call:"])


def _gsm8k(record: Record) -> str:
  return f"Question: {record['question']}\nAnswer:"


def _humaneval(record: Record) -> str:
  return record["prompt"]


# Name -> (folder of the files, record -> prompts). Spec-Bench is 2401.07851, its first turns.
SETS: dict[str, tuple[str, Callable[[Record], str | Sequence[str]]]] = {
  "specbench": ("specbench", _specbench),
  "pycode": ("pycode", _pycode),
  "toolcall": ("toolcall", _toolcall),
  "gsm8k": ("gsm8k", _gsm8k),
  "humaneval": ("humaneval", _humaneval),
  "editing": ("mbpp", editing),
  "summarising": ("wikidemo", summarising),
}
# Sets for models that follow instructions: others do not answer them.
JOBS = ("editing", "summarising")


def prompts(root: str | Path, name: str, count: int) -> list[str]:
  """Returns `count` different prompts, spread evenly over the set `name` below `root`, in order.

  Reads every .jsonl and .jsonl.gz of the folder, or only the test splits if there are any. Raises
  ValueError for an unknown set, one with fewer prompts, and records of another form;
  FileNotFoundError for a folder without files.
  """
  return split_prompts(root, name, count, 0)[0]


def split_prompts(
  root: str | Path, name: str, count: int, others: int
) -> tuple[list[str], list[str]]:
  """Returns the result of `prompts`, and `others` more prompts of the set, none of them twice.

  The first do not depend on `others`: a drafter that learns from text can be warmed up with the
  second and timed on the first.
  """
  check_sets([name])
  folder = Path(root) / SETS[name][0]
  texts = list(dict.fromkeys(_texts(folder, SETS[name][1])))
  chosen = _spread(texts, count, f"{name} in {root} has")
  rest = [text for text in texts if text not in set(chosen)]
  return chosen, _spread(rest, others, f"beside the {count}, {name} in {root} has")


def check_sets(names: Sequence[str]) -> None:
  """Raises ValueError for names that are not in SETS."""
  unknown = [name for name in names if name not in SETS]
  if unknown:
    raise ValueError(f"unknown prompt sets {unknown}; there is: {', '.join(SETS)}")


def _spread(texts: list[str], count: int, has: str) -> list[str]:
  if len(texts) < count:
    raise ValueError(f"{has} only {len(texts)} prompts, but {count} are needed")
  return [texts[index * len(texts) // count] for index in range(count)]


def _texts(folder: Path, of_record: Callable[[Record], str | Sequence[str]]) -> Iterator[str]:
  files = sorted((*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")))
  if not files:
    raise FileNotFoundError(f"there is no .jsonl or .jsonl.gz file in {str(folder)!r}")
  tests = [file for file in files if "test" in file.name]
  for file in tests or files:
    for number, line in enumerate(read_text(file).split("\n"), 1):
      try:
        found = as_texts(of_record(parse_json(line, str(file)))) if line.strip() else []
      except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{file}, line {number}: not a record of this set ({error!r})") from None
      yield from (text for text in found if text.strip())
