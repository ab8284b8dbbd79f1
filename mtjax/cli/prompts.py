"""Prompts for a launcher: from flags, JSON lines or standard input."""

import sys
from collections.abc import Sequence

from mtjax.data.sources.text_files import BYTE_ORDER_MARK, parse_json, read_text, whole_text
from mtjax.data.tokenizers import Tokenizer


def read_prompts(texts: Sequence[str], file: str | None) -> list[str]:
  """Returns `texts` and the prompts in a file of {"prompt": "..."} lines, or else standard input.

  Raises ValueError when there is no prompt, or for another line (with its number), and
  FileNotFoundError.
  """
  prompts = list(texts)
  if file is not None:
    lines = enumerate(read_text(file).split("\n"), 1)
    prompts += [
      _prompt_of(line, f"{file}, line {number}") for number, line in lines if line.strip()
    ]
  if not prompts and not sys.stdin.isatty():
    text = sys.stdin.read().removeprefix(BYTE_ORDER_MARK).rstrip("\n")
    prompts = [text] if text else []
  if not prompts:
    raise ValueError('no prompt: give --prompt="...", --prompts=file.jsonl, or text on stdin')
  return prompts


def _prompt_of(line: str, where: str) -> str:
  try:
    prompt = "".join([parse_json(line, where)["prompt"]])  # a TypeError for anything but text
  except (ValueError, KeyError, TypeError):
    raise ValueError(f'{where}: not {{"prompt": "..."}}') from None
  return whole_text(prompt, where)


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
