"""Requests to warm a trie with and to measure it on: prompts and their outputs."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mtjax.data.sources.text_files import read_records, read_text

Request = tuple[str, str]  # prompt, output

# Characters per passage that the target continues, and from one passage to the next.
_PASSAGE, _STRIDE = 600, 150


def answered(path: Path, prompt: str, output: str) -> list[Request]:
  """Reads requests from JSON lines; the reference answer, field `output`, is the output."""
  return [(row[prompt] + "\n", row[output]) for _, row in read_records(path, (prompt, output))]


def passages(path: Path) -> list[str]:
  """Returns overlapping passages of the articles {"text"}, mixed evenly over the whole list."""
  articles = [row["text"] for _, row in read_records(path, ("text",))]
  starts = [(text, at) for text in articles for at in range(0, len(text) - _PASSAGE, _STRIDE)]
  # A step that shares no factor with the count visits every one.
  step = next(n for n in range(len(starts) * 618 // 1000, len(starts)) if _coprime(n, len(starts)))
  order = (index * step % len(starts) for index in range(len(starts)))
  return [starts[index][0][starts[index][1] :][:_PASSAGE] for index in order]


def retrieved(path: Path) -> list[str]:
  """Returns prompts of Spec-Bench's retrieval subset: passages and a question."""
  rows = [json.loads(line) for line in read_text(path).splitlines() if line.strip()]
  return ["\n".join(row["turns"]) for row in rows if row["category"] == "rag"]


def recorded(
  path: Path, prompts: Sequence[str], batch: int, write: Callable[[Sequence[str]], list[str]]
) -> Iterator[Request]:
  """Yields requests with the outputs of `write` for batches; outputs in `path` are not made again.

  The same prompts and batches continue a file that ended early.
  """
  done = [json.loads(line) for line in read_text(path).splitlines()] if path.exists() else []
  with open(path, "a", encoding="utf-8") as file:
    for start in range(0, len(prompts), batch):
      part = prompts[start : start + batch]
      if start + len(part) > len(done):
        outputs = write(part)[max(len(done) - start, 0) :]
        file.writelines(json.dumps(output) + "\n" for output in outputs)
        file.flush()
        done += outputs
      yield from zip(part, done[start:], strict=False)


def _coprime(one: int, other: int) -> bool:
  while other:
    one, other = other, one % other
  return one == 1
