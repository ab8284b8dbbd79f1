"""Jobs for a model that chats whose answers repeat parts of their prompts: editing, summarising."""

import re
import zlib
from collections.abc import Sequence
from typing import Any

_DEF = re.compile(r"^def (\w+)", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
# Characters: with its instruction a job has at most about 256 tokens.
_CODE = 250, 600
_PASSAGE = 400, 800
_PASSAGES = 3  # per article, from its beginning

_EDITS = (
  "Rename the function `{name}` to `{name}_of`, everywhere.",
  "Add a docstring to each function.",
  "Add a comment above each line that is not obvious.",
  "Reformat this code: four spaces of indentation, and spaces around operators.",
)
_SUMMARIES = (
  "Summarise this text in three sentences.",
  "List the main facts of this text.",
  "Make this text half as long.",
)


def editing(record: dict[str, Any]) -> list[str]:
  """Returns a job on the code of a record of MBPP (2108.07732): change it, write all of it again.

  Code that is too short or too long, or has no function, makes no job; nor do the records of the
  sanitised set, which repeats code of the other.
  """
  code = "\n".join(line.rstrip() for line in record["code"].expandtabs(4).splitlines())
  names = _DEF.findall(code)
  if "prompt" in record or not names or not _CODE[0] <= len(code) <= _CODE[1]:
    return []
  edit = _choose(_EDITS, code).format(name=names[-1])
  return [f"{edit} Answer with the whole code.\n\n```python\n{code}\n```"]


def summarising(record: dict[str, Any]) -> list[str]:
  """Returns a job for each of the first passages, of whole sentences, of an article."""
  passages = [""]
  for sentence in _SENTENCE.split(record["text"].strip()):
    longer = f"{passages[-1]} {sentence}".strip()
    if len(longer) <= _PASSAGE[1]:
      passages[-1] = longer
    elif len(passages) == _PASSAGES:
      break
    else:
      passages.append(sentence)
  fitting = (text for text in passages if _PASSAGE[0] <= len(text) <= _PASSAGE[1])
  return [f"{_choose(_SUMMARIES, text)}\n\n{text}" for text in fitting]


def _choose(choices: Sequence[str], text: str) -> str:
  """Returns a choice that depends on the text alone: records may be left out or be added."""
  return choices[zlib.crc32(text.encode()) % len(choices)]
