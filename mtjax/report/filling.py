"""Pictures of a text being filled: which position was decided in which forward pass."""

from pathlib import Path

import numpy as np
from rich.text import Text

from mtjax.anysubset.infill import Infilling
from mtjax.data.tokenizers import Tokenizer, pieces_of
from mtjax.report.plotting import new_figure

# From the first pass to the last; readable on dark and light.
_COLORS = ("#3b6fd4", "#2a9d8f", "#8ab17d", "#e9a23b", "#e76f51", "#c2417c")


def colored(found: Infilling, tokenizer: Tokenizer) -> Text:
  """The text, tokens in the colour of their pass, accepted drafts underlined, open ones as "_"."""
  last = max(1, *found.decided_at)
  out = Text()
  style, waiting = None, b""
  pieces = pieces_of(tokenizer, found.tokens)
  for piece, is_target, decided_at, drafted in zip(
    pieces, found.is_target, found.decided_at, found.drafted, strict=True
  ):
    own = "dim"
    if is_target:
      shade = _COLORS[(decided_at - 1) * (len(_COLORS) - 1) // max(last - 1, 1)]
      own = f"bold {shade}{' underline' if drafted else ''}" if decided_at else "dim"
    if own != style:
      out.append(waiting.decode("utf-8", "replace"), style)
      style, waiting = own, b""
    waiting += b"_" if is_target and not decided_at else piece
  return out.append(waiting.decode("utf-8", "replace"), style)


def save_picture(path: str | Path, found: Infilling, tokenizer: Tokenizer) -> None:
  """A picture: one column an asked token, one row a pass; a mark where and when it was decided.

  Filled marks are accepted drafts, open ones the oracle's own draws. Raises ModuleNotFoundError,
  naming the extra, without matplotlib.
  """
  targets = np.flatnonzero(found.is_target)
  decided_at = np.asarray(found.decided_at)[targets]
  drafted = np.asarray(found.drafted)[targets]
  labels = [
    piece.decode("utf-8", "replace").replace("\n", "\\n").replace("$", r"\$")
    for piece in pieces_of(tokenizer, [found.tokens[i] for i in targets])
  ]
  column = np.arange(len(targets))
  figure = new_figure(
    figsize=(min(3 + 0.32 * len(targets), 24), min(2.2 + 0.22 * decided_at.max(), 12)),
    layout="constrained",
  )
  axes = figure.subplots()
  for own, face, label in ((True, "#3b6fd4", "accepted draft"), (False, "white", "oracle's draw")):
    here = drafted == own
    axes.scatter(
      column[here],
      decided_at[here],
      s=46,
      facecolors=face,
      edgecolors="#3b6fd4",
      label=label,
      zorder=3,
    )
  # Where a given piece lies between two asked tokens.
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
  figure.savefig(path, dpi=120)
