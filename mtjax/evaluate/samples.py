"""Texts that any system wrote, from text files and JSON lines, to be judged."""

from pathlib import Path
from typing import Any, NamedTuple

from mtjax.data.sources.text_files import read_records, read_text, whole_text

# The fields of a record that hold what was written, a text or a list of texts: the first is taken.
FIELDS = ("text", "answer", "answers", "completion", "output")
_GROUPS = ("task", "method", "order")  # of the records that mtjax-evaluate writes
_SETTINGS = "params_crc32"  # a field of the first line of its files, which is no answer


class Sample(NamedTuple):
  """A text, and what it continues: that is read before it and is not judged."""

  text: str
  prompt: str = ""


def read_samples(path: str | Path) -> dict[str, list[Sample]]:
  """Returns the samples of a file, by name: that of the file, and of what wrote them if it says so.

  A file of text is one sample. A file of JSON lines (.jsonl, or .jsonl.gz) has a record per line,
  with a text or a list of texts in one of FIELDS, and perhaps a "prompt", or a list "prompts" with
  one for each text; records of `--records` have a method, or an order, by which they are kept
  apart. Those of filled blanks have the blank alone, without the text around it, so that figures of
  them mean little. Raises FileNotFoundError, and ValueError, with the line, for other records and
  for a file without a text.
  """
  name = Path(path).name
  if not name.removesuffix(".gz").endswith(".jsonl"):
    groups = {name: [Sample(read_text(path))]}
  else:
    groups: dict[str, list[Sample]] = {}
    for number, record in read_records(path, ()):
      if number == 1 and _SETTINGS in record:
        continue
      said = [record[field] for field in _GROUPS if isinstance(record.get(field), str)]
      groups.setdefault(" ".join([name, *said]), []).extend(_samples(record, path, number))
  if not any(sample.text for samples in groups.values() for sample in samples):
    raise ValueError(f"{path} holds no text to judge")
  return groups


def _samples(record: dict[str, Any], path: str | Path, number: int) -> list[Sample]:
  where = f"{path}, line {number}"
  value: Any = next((record[field] for field in FIELDS if field in record), None)
  texts = value if isinstance(value, list) else [value]
  if not all(isinstance(text, str) for text in texts):
    raise ValueError(
      f"{where}: a record must have a text, or a list of texts, in one of {', '.join(FIELDS)}; it "
      f"has {', '.join(record) or 'no field'}"
    )
  prompts: Any = record.get("prompts", [record.get("prompt", "")] * len(texts))
  if not isinstance(prompts, list) or len(prompts) != len(texts):
    raise ValueError(
      f"{where}: prompts must be a list with one prompt for each of {len(texts)} texts"
    )
  for prompt in prompts:
    if not isinstance(prompt, str):
      raise ValueError(f"{where}: prompt must be a text, got {type(prompt).__name__}")
  return [
    Sample(whole_text(text, where), whole_text(prompt, where))
    for text, prompt in zip(texts, prompts, strict=True)
  ]
