"""Canvases on a terminal: each token in the colour of its pass, masks as shaded boxes."""

from rich.text import Text

from mtjax.data.tokenizers import Tokenizer
from mtjax.diffusion.traces.frames import CanvasFrame
from mtjax.report.canvas.spelling import MASK, spelled_tokens
from mtjax.report.filling import pass_color


def colored_canvases(frame: CanvasFrame, tokenizer: Tokenizer) -> Text:
  """Returns the canvases of all rows; several are numbered. Later passes have warmer colours."""
  out = Text()
  for row, (tokens, decided_at) in enumerate(zip(frame.tokens, frame.decided_at, strict=True)):
    if len(frame.tokens) > 1:
      out.append("\n" * bool(row) + f"[{row}] ", "dim")
    last = max(1, *decided_at)
    for shown, at in zip(spelled_tokens(tokenizer, tokens), decided_at, strict=True):
      if shown is None:
        out.append(MASK, "dim")
      else:
        out.append(shown, f"bold {pass_color(at, last)}")
  return out


def plain_canvases(frame: CanvasFrame, tokenizer: Tokenizer) -> str:
  """Returns the canvases of all rows as text, in quotes, so that each is one line of a log."""
  rows = ["".join(shown or (MASK if shown is None else "") for shown in
                  spelled_tokens(tokenizer, tokens)) for tokens in frame.tokens]  # fmt: skip
  return " | ".join(map(repr, rows))
