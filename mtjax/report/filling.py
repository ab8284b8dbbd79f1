"""Pictures of a text being filled: which position was decided in which forward pass."""

from typing import Any

import numpy as np
from rich.text import Text

from mtjax.anysubset.infill import Infilling
from mtjax.data.tokenizers import Tokenizer, pieces_of
from mtjax.report.plotting import new_figure

# From the first pass to the last; readable on dark and light.
_COLORS = ("#3b6fd4", "#2a9d8f", "#8ab17d", "#e9a23b", "#e76f51", "#c2417c")


def colored(infilling: Infilling, tokenizer: Tokenizer) -> Text:
  """Returns the text with tokens in the colour of their pass, drafts underlined, open ones "_"."""
  last = max(1, *infilling.decided_at)
  out = Text()
  style, waiting = None, b""
  pieces = pieces_of(tokenizer, infilling.tokens)
  for piece, is_target, decided_at, drafted in zip(
    pieces, infilling.is_target, infilling.decided_at, infilling.drafted, strict=True
  ):
    color = "dim"
    if is_target:
      shade = pass_color(decided_at, last)
      color = f"bold {shade}{' underline' if drafted else ''}" if decided_at else "dim"
    if color != style:
      out.append(waiting.decode("utf-8", "replace"), style)
      style, waiting = color, b""
    waiting += b"_" if is_target and not decided_at else piece
  return out.append(waiting.decode("utf-8", "replace"), style)


def pass_color(number: int, last: int) -> str:
  """Returns the colour of a pass, from 1 to `last`; that of passes 0 and 1 is the same."""
  return _COLORS[max(number - 1, 0) * (len(_COLORS) - 1) // max(last - 1, 1)]


def passes_picture(infilling: Infilling, tokenizer: Tokenizer) -> Any:
  """Returns a figure of one column per target token and one row per forward pass.

  A mark shows the pass that decided a token: a filled one is an accepted draft, an open one a
  sample of the oracle. Raises ModuleNotFoundError, naming the extra, without matplotlib.
  """
  targets = np.flatnonzero(infilling.is_target)
  decided_at = np.asarray(infilling.decided_at)[targets]
  drafted = np.asarray(infilling.drafted)[targets]
  labels = [
    piece.decode("utf-8", "replace").replace("\n", "\\n").replace("$", r"\$")
    for piece in pieces_of(tokenizer, [infilling.tokens[i] for i in targets])
  ]
  column = np.arange(len(targets))
  figure = new_figure(
    figsize=(min(3 + 0.32 * len(targets), 24), min(2.2 + 0.22 * decided_at.max(), 12)),
    layout="constrained",
  )
  axes = figure.subplots()
  for is_draft, face, label in (
    (True, "#3b6fd4", "accepted draft"),
    (False, "white", "oracle's sample"),
  ):
    here = drafted == is_draft
    axes.scatter(
      column[here],
      decided_at[here],
      s=46,
      facecolors=face,
      edgecolors="#3b6fd4",
      label=label,
      zorder=3,
    )
  # Lines where context lies between two target tokens.
  for gap in np.flatnonzero(np.diff(targets) > 1):
    axes.axvline(gap + 0.5, color="#999999", linewidth=0.8, linestyle=":")
  axes.set_xticks(column, labels, rotation=90, family="monospace", fontsize=8)
  axes.yaxis.get_major_locator().set_params(integer=True)
  axes.set_ylim(decided_at.max() + 0.7, 0.3)
  axes.set_ylabel("forward pass")
  axes.grid(axis="y", color="#e5e5e5", zorder=0)
  passes = int(decided_at.max())
  axes.set_title(f"{len(targets)} tokens in {passes} forward passes", loc="left", fontsize=10)
  axes.legend(loc="lower left", bbox_to_anchor=(0.0, -0.02), fontsize=8, frameon=False)
  return figure
