"""Tokens as elements of a page: each can be pointed at, and says what it is in grey print too."""

import codecs
import unicodedata
from collections.abc import Iterator, Sequence
from html import escape

from mtjax.report.history.run_json import RecordedRun

_CONTROL_PICTURES = 0x2400  # signs for the characters below 32
PART = "▫"  # shown for a token with which no character ends


def spellings(run: RecordedRun, tokens: Sequence[int]) -> Iterator[str]:
  """Yields the HTML of each token as it stands in the text.

  A character of several tokens stands at its last one. Signs that show a newline or another
  control character are not copied with the text.
  """
  decoder = codecs.getincrementaldecoder("utf-8")("replace")
  for place, token in enumerate(tokens):
    if token in run.special:
      yield escape(run.pieces[token])
      continue
    piece = run.parts.get(token, run.pieces.get(token, "").encode("utf-8", "replace"))
    shown = decoder.decode(piece, final=place + 1 == len(tokens))
    yield "".join(map(_sign, shown)) or f"<i>{escape(PART if piece else run.piece(token))}</i>"


def token_element(
  run: RecordedRun, token: int, shown: str, classes: str, attributes: str = ""
) -> str:
  """Returns the element of a token whose HTML is `shown`."""
  special = " special" if token in run.special else ""
  return f'<span class="t {classes}{special}"{attributes}>{shown}</span>'


def prompt_text(run: RecordedRun, row: int) -> str:
  """Returns the prompt of a row, or nothing where it was not recorded."""
  if row >= len(run.prompts) or not run.prompts[row]:
    return ""
  tokens = run.prompts[row]
  shown = "".join(
    token_element(run, token, text, "") if token in run.special else text
    for token, text in zip(tokens, spellings(run, tokens), strict=True)
  )
  return (
    f"<details><summary>Prompt, {len(tokens):,} tokens</summary>"
    f'<div class="text prompt" tabindex="0">{shown}</div></details>'
  )


def plain_sign(character: str) -> str:
  """Returns what a character is shown as: itself, or a sign for what could not be seen."""
  if character == "\n":
    return "⏎\n"
  if character == "\t":
    return "\t"
  if ord(character) < 32:
    return chr(_CONTROL_PICTURES + ord(character))
  if unicodedata.category(character) in ("Cc", "Cf", "Cs"):
    return f"U+{ord(character):04X}"
  return character


def _sign(character: str) -> str:
  shown = plain_sign(character)
  if shown == character:
    return escape(character)
  return f"<i>{shown.rstrip()}</i>" + "\n" * (character == "\n")
