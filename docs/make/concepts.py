"""Draws the pictures of docs/concepts.md: python -m docs.make.concepts

The tree's labels are those of `mtjax.frontier.tree`; the text and the verdict are an example.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mtjax import frontier as frontier_lib
from mtjax.report import plotting

FOLDER = Path(__file__).resolve().parent.parent / "pictures"

PREFIX = ("The", "old", "clock")
# The root is the last emitted token. The accepted path is "nine" -> ","; "and" is emitted after it.
TOKENS = ("struck", "nine", "ten", ",", ".", "times")
PARENT = (-1, 0, 0, 1, 1, 2)
PATH = (0, 1, 3)
EMITTED = "and"

GREY, BLUE, GREEN, RED = "#e8e8ec", "#cfe0f5", "#cdebd0", "#f6d3d0"
EDGE = "#4a4a55"


def tree_picture():
  """Returns a figure: the same tree drafted, verified and committed."""
  figure = plotting.new_figure(figsize=(13, 4.2))
  axes = figure.subplots(1, 3)
  place = _places()
  for axis, title in zip(axes, ("1. propose", "2. forward and verify", "3. commit"), strict=True):
    axis.set_title(title, fontsize=13, loc="left")
    axis.set(xlim=(-3.6, 3.6), ylim=(-4.0, 1.7))
    axis.axis("off")
  _cache(axes[0], PREFIX, "cache: what is committed")
  _nodes(axes[0], place, lambda node: BLUE if node else GREY)
  axes[0].text(0, -3.9, "a drafter proposes a tree of next tokens", ha="center", fontsize=10)

  _cache(axes[1], PREFIX, "")
  _nodes(axes[1], place, lambda node: GREEN if node in PATH else RED)
  x, y = place[PATH[-1]]
  _box(axes[1], x, y - 1.0, EMITTED, GREY, style="dashed")
  axes[1].text(
    0, -3.9, "one pass of the target judges all nodes; it adds a token", ha="center", fontsize=10
  )

  _cache(axes[2], (*PREFIX, *(TOKENS[node] for node in PATH)), "")
  _box(axes[2], 0, 0, EMITTED, GREY, style="dashed")
  axes[2].text(0, -0.75, "the next round's root", ha="center", fontsize=10, color=EDGE)
  axes[2].text(
    0, -3.9, "the accepted path joins the cache, the rest is dropped", ha="center", fontsize=10
  )
  figure.tight_layout()
  return figure


def mask_picture():
  """Returns a figure: the tree's three integers, and the mask that they mean."""
  figure = plotting.new_figure(figsize=(10, 4.2))
  table, mask = figure.subplots(1, 2, gridspec_kw=dict(width_ratios=(1.25, 1)))
  frontier = frontier_lib.tree(
    jnp.zeros((1, len(TOKENS)), jnp.int32), jnp.asarray([PARENT]), start=len(PREFIX)
  )
  stamp, lo, hi = (np.asarray(x)[0, 0] for x in (frontier.stamp, frontier.lo, frontier.hi))
  position = np.asarray(frontier.position)[0]
  table.axis("off")
  rows = [
    [TOKENS[i], str(PARENT[i]), str(position[i]), str(stamp[i]), f"[{lo[i]}, {hi[i]})"]
    for i in range(len(TOKENS))
  ]
  drawn = table.table(
    rows,
    colLabels=["token", "parent", "position", "stamp", "[lo, hi)"],
    loc="center",
    cellLoc="center",
  )
  drawn.auto_set_font_size(False)
  drawn.set_fontsize(11)
  drawn.scale(1, 1.8)
  dense = np.asarray(frontier_lib.as_dense(frontier))[0]
  shown = np.where(dense[:, :, None], (0.22, 0.42, 0.68), (1.0, 1.0, 1.0))
  mask.imshow(shown)
  ticks = range(len(TOKENS))
  mask.set_xticks(ticks, TOKENS, rotation=40, ha="left")
  mask.set_yticks(ticks, TOKENS)
  mask.xaxis.tick_top()
  mask.set_xticks(np.arange(-0.5, len(TOKENS)), minor=True)
  mask.set_yticks(np.arange(-0.5, len(TOKENS)), minor=True)
  mask.grid(which="minor", color="0.8")
  mask.tick_params(which="both", length=0)
  mask.set_ylabel("entry i ...")
  mask.set_title("... sees entry j", fontsize=10)
  figure.tight_layout()
  return figure


def _places() -> list[tuple[float, float]]:
  """Returns the place of each node of the tree."""
  return [(0, 0), (-1.5, -1), (1.7, -1), (-2.4, -2), (-0.6, -2), (1.7, -2)]


def _cache(axis, tokens, caption) -> None:
  widths = [0.48 + 0.16 * len(token) for token in tokens]
  right = -sum(widths) / 2
  for token, width in zip(tokens, widths, strict=True):
    _box(axis, right + width / 2, 1.0, token, GREY)
    right += width
  axis.text(0, 1.42, caption, ha="center", fontsize=9, color=EDGE)


def _nodes(axis, place, color) -> None:
  for node, parent in enumerate(PARENT):
    if parent >= 0:
      axis.plot(*zip(place[parent], place[node], strict=True), color=EDGE, lw=1, zorder=1)
  for node, (x, y) in enumerate(place):
    _box(axis, x, y, TOKENS[node], color(node))


def _box(axis, x, y, text, color, *, style="solid") -> None:
  axis.text(
    x,
    y,
    text,
    ha="center",
    va="center",
    fontsize=11,
    family="monospace",
    bbox=dict(boxstyle="round,pad=0.35", facecolor=color, edgecolor=EDGE, linestyle=style),
    zorder=2,
  )


def main() -> None:
  FOLDER.mkdir(exist_ok=True)
  for name, figure in (("tree", tree_picture()), ("mask", mask_picture())):
    path = FOLDER / f"{name}.png"
    figure.savefig(path, dpi=110)
    print(f"wrote {path.relative_to(FOLDER.parent.parent)}")


if __name__ == "__main__":
  main()
