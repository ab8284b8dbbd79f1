"""Draws the pictures of docs/concepts.md: python -m docs.make.concepts

The tree is one that a decode of the bundled models recorded, greedily, and so is its verdict; its
labels are those of `mtjax.frontier.tree`. A minute or two: two models are compiled.
"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mtjax import frontier as frontier_lib
from mtjax.data.tokenizers import pieces_of
from mtjax.decode.speculative import Speculative
from mtjax.draft import ModelTree
from mtjax.pretrained import load_pretrained
from mtjax.report import plotting
from mtjax.rounds.history import TreeRecord, emitted_tokens_of
from mtjax.trees import encodings

FOLDER = Path(__file__).resolve().parent.parent / "pictures"

PROMPT = "She opened the door of the house and"
SHAPE = encodings.from_paths([[0], [1], [0, 0], [0, 1], [1, 0]])
PATH = (0, 1, 3)  # of the round that is shown

GREY, BLUE, GREEN, RED = "#e8e8ec", "#cfe0f5", "#cdebd0", "#f6d3d0"
EDGE = "#4a4a55"


@dataclasses.dataclass(frozen=True)
class Example:
  """A recorded round, as words."""

  prefix: tuple[str, ...]  # the last tokens before the root
  tree: TreeRecord
  tokens: tuple[str, ...]
  emitted: str


def record() -> Example:
  """Returns the first round of a run that accepts PATH of a whole tree of words."""
  target, draft = load_pretrained("target"), load_pretrained("draft")
  method = dict(method=Speculative(ModelTree(draft.model, SHAPE)), method_params=draft.params)
  _, run = target.generate([PROMPT], **method, max_tokens=64, history=True)
  history = run.history or []

  def words(tokens):
    return tuple(piece.decode().strip() for piece in pieces_of(target.tokenizer, tokens))

  for number, one in enumerate(history):
    tree = one.rows[0]
    whole = isinstance(tree, TreeRecord) and len(tree.tokens) == SHAPE.size and tree.path == PATH
    if (
      whole and tree.bonus is not None and all(map(str.isalpha, words([*tree.tokens, tree.bonus])))
    ):
      before = emitted_tokens_of(history[:number], 0)[:-1]
      prefix = words([*target.tokenizer.encode(PROMPT), *before][-3:])
      return Example(prefix, tree, words(tree.tokens), *words([tree.bonus]))
  raise ValueError(f"no round of {PROMPT!r} accepts {PATH}: take another prompt")


def tree_picture(example: Example):
  """Returns a figure: the same tree drafted, verified and committed."""
  figure = plotting.new_figure(figsize=(13, 4.2))
  axes = figure.subplots(1, 3)
  place = _places()
  for axis, title in zip(axes, ("1. propose", "2. forward and verify", "3. commit"), strict=True):
    axis.set_title(title, fontsize=13, loc="left")
    axis.set(xlim=(-3.6, 3.6), ylim=(-4.0, 1.7))
    axis.axis("off")
  _cache(axes[0], example.prefix, "cache: what is committed")
  _nodes(axes[0], place, example, lambda node: BLUE if node else GREY)
  axes[0].text(0, -3.9, "a drafter proposes a tree of next tokens", ha="center", fontsize=10)

  _cache(axes[1], example.prefix, "")
  _nodes(axes[1], place, example, lambda node: GREEN if node in PATH else RED)
  x, y = place[PATH[-1]]
  _box(axes[1], x, y - 1.0, example.emitted, GREY, style="dashed")
  axes[1].text(
    0, -3.9, "one pass of the target judges all nodes; it adds a token", ha="center", fontsize=10
  )

  _cache(axes[2], (*example.prefix, *(example.tokens[node] for node in PATH)), "")
  _box(axes[2], 0, 0, example.emitted, GREY, style="dashed")
  axes[2].text(0, -0.75, "the next round's root", ha="center", fontsize=10, color=EDGE)
  axes[2].text(
    0, -3.9, "the accepted path joins the cache, the rest is dropped", ha="center", fontsize=10
  )
  figure.tight_layout()
  return figure


def mask_picture(example: Example):
  """Returns a figure: the tree's three integers, and the mask that they mean."""
  figure = plotting.new_figure(figsize=(10, 4.2))
  table, mask = figure.subplots(1, 2, gridspec_kw=dict(width_ratios=(1.25, 1)))
  tokens, parent = example.tokens, example.tree.parents
  frontier = frontier_lib.tree(
    jnp.asarray([example.tree.tokens]), jnp.asarray([parent]), start=len(example.prefix)
  )
  stamp, lo, hi = (np.asarray(x)[0, 0] for x in (frontier.stamp, frontier.lo, frontier.hi))
  position = np.asarray(frontier.position)[0]
  table.axis("off")
  rows = [
    [tokens[i], str(parent[i]), str(position[i]), str(stamp[i]), f"[{lo[i]}, {hi[i]})"]
    for i in range(len(tokens))
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
  ticks = range(len(tokens))
  mask.set_xticks(ticks, tokens, rotation=40, ha="left")
  mask.set_yticks(ticks, tokens)
  mask.xaxis.tick_top()
  mask.set_xticks(np.arange(-0.5, len(tokens)), minor=True)
  mask.set_yticks(np.arange(-0.5, len(tokens)), minor=True)
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


def _nodes(axis, place, example: Example, color) -> None:
  for node, parent in enumerate(example.tree.parents):
    if parent >= 0:
      axis.plot(*zip(place[parent], place[node], strict=True), color=EDGE, lw=1, zorder=1)
  for node, (x, y) in enumerate(place):
    _box(axis, x, y, example.tokens[node], color(node))


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
  example = record()
  for name, figure in (("tree", tree_picture(example)), ("mask", mask_picture(example))):
    path = FOLDER / f"{name}.png"
    figure.savefig(path, dpi=110)
    print(f"wrote {path.relative_to(FOLDER.parent.parent)}")


if __name__ == "__main__":
  main()
