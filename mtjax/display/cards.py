"""HTML cards for notebooks: escaped, self-contained, readable on light and dark pages.

Colours of text are the page's own; tints and lines let the page's background shine through, because
a notebook's theme need not be that of the browser.
"""

from collections.abc import Iterable, Sequence
from html import escape

_CARD = (
  "border:1px solid rgba(128,128,128,.4);border-radius:6px;padding:.5em .9em;margin:.3em 0;"
  "max-width:60em;font:14px/1.5 system-ui,sans-serif"
)
_TEXT = (
  "font:13px/1.8 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere;"
  "border-top:1px solid rgba(128,128,128,.25);padding:.4em 0"
)
_CELL = "border:0;padding:0 1.2em 0 0;text-align:left;background:none"
# As in the page of a history: blue for accepted drafts, orange for the target's own tokens.
TINTS = {True: "rgba(59,111,212,.28)", False: "rgba(233,162,59,.28)"}


def card(title: str, facts: Sequence[tuple[str, str]], parts: Iterable[str] = ()) -> str:
  """Returns a box with a title, a line of named facts, and parts that are HTML already."""
  names = "".join(f'<td style="{_CELL};opacity:.65">{escape(name)}</td>' for name, _ in facts)
  values = "".join(f'<td style="{_CELL}">{escape(value)}</td>' for _, value in facts)
  table = f'<table style="border:0;margin:0"><tr>{names}</tr><tr>{values}</tr></table>'
  inside = "".join([table if facts else "", *parts])
  return f'<div style="{_CARD}"><b>{escape(title)}</b>{inside}</div>'


def tokens(pieces: Sequence[str], drafted: Sequence[bool], titles: Sequence[str]) -> str:
  """Returns a text token by token, each in the tint of who proposed it, with a title to hover."""
  spans = (
    f'<span style="background:{TINTS[draft]}" title="{escape(title)}">{escape(piece)}</span>'
    for piece, draft, title in zip(pieces, drafted, titles, strict=True)
  )
  return f'<div style="{_TEXT}">{"".join(spans)}</div>'


def note(text: str) -> str:
  """Returns a small line."""
  return f'<div style="opacity:.65;font-size:12px">{escape(text)}</div>'


def legend() -> str:
  """Returns the meaning of the tints of `tokens`."""
  words = {True: "accepted draft", False: "the target's own token"}
  keys = "  ".join(
    f'<span style="background:{tint}">&nbsp;{words[draft]}&nbsp;</span>'
    for draft, tint in TINTS.items()
  )
  return f'<div style="font-size:12px">{keys}</div>'
