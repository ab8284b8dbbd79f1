"""Prompts for a launcher: from flags, JSON lines or standard input."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from mtjax.data.sources.text_files import BYTE_ORDER_MARK, parse_json, read_text, whole_text
from mtjax.data.tokenizers import Tokenizer

# What a line may say of its own row, where the rows of a batch may differ in it.
ROW_FIELDS = ("seed", "temperature", "top_k", "top_p", "min_p")
_FIELD = "prompt"


class PromptRow(NamedTuple):
  """A prompt, and what else its line says."""

  prompt: str
  settings: dict[str, Any]
  where: str  # for errors: the file and the number of the line; empty for a prompt of no file


def read_prompts(texts: Sequence[str], file: str | None) -> list[str]:
  """Returns `texts` and the prompts in a file of {"prompt": "..."} lines, or else standard input.

  Fields that are not of `ROW_FIELDS` are not read. Raises ValueError when there is no prompt, for
  another line (with its number), and for one with a field of `ROW_FIELDS`, and FileNotFoundError.
  """
  rows = _read_rows(texts, file)
  for row in rows:
    own = [name for name in ROW_FIELDS if name in row.settings]
    if own:
      raise ValueError(
        f"{row.where}: a method that decodes has the same settings for all prompts: leave "
        f"{' and '.join(own)} out, and give --config.{own[0]}"
      )
  return [row.prompt for row in rows]


def read_rows(texts: Sequence[str], file: str | None) -> list[PromptRow]:
  """Returns what `read_prompts` does, with the settings of each row.

  A line may be {"prompt": "...", "seed": 3, "temperature": 0.7}. Raises ValueError too for a field
  that is not one of `ROW_FIELDS` (with the line's number).
  """
  rows = _read_rows(texts, file)
  for row in rows:
    for name in row.settings:
      if name not in ROW_FIELDS:
        raise ValueError(
          f"{row.where}: unknown field {name!r}; a line has {_FIELD}, and may have "
          f"{', '.join(ROW_FIELDS)}"
        )
  return rows


def _read_rows(texts: Sequence[str], file: str | None) -> list[PromptRow]:
  rows = [PromptRow(text, {}, "") for text in texts]
  if file is not None:
    lines = enumerate(read_text(file).split("\n"), 1)
    rows += [_row_of(line, f"{file}, line {number}") for number, line in lines if line.strip()]
  if not rows and not sys.stdin.isatty():
    text = sys.stdin.read().removeprefix(BYTE_ORDER_MARK).rstrip("\n")
    rows = [PromptRow(text, {}, "")] if text else []
  if not rows:
    raise ValueError('no prompt: give --prompt="...", --prompts=file.jsonl, or text on stdin')
  return rows


def _row_of(line: str, where: str) -> PromptRow:
  try:
    settings = dict(parse_json(line, where))
    prompt = "".join([settings.pop(_FIELD)])  # a TypeError for anything but text
  except (ValueError, KeyError, TypeError):
    raise ValueError(f'{where}: not {{"prompt": "..."}}') from None
  return PromptRow(whole_text(prompt, where), settings, where)


def formatted(prompts: list[str], tokenizer: Tokenizer, prompt_format: str) -> list:
  """Returns prompts for `TextModel.generate`; "chat" makes each one a user's message."""
  if prompt_format == "text":
    return prompts
  if prompt_format != "chat":
    raise ValueError(f'prompt_format {prompt_format!r} is not one of: "text", "chat"')
  encode_chat = getattr(tokenizer, "encode_chat", None)
  if encode_chat is None:
    raise ValueError("this model's tokenizer has no chat template; use prompt_format text")
  return [encode_chat([dict(role="user", content=prompt)]) for prompt in prompts]
