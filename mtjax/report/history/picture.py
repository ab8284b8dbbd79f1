"""A round of a recorded decode as a picture: its tree, what was accepted, where its time went."""

from collections.abc import Mapping
from typing import Any

from mtjax.report import plotting
from mtjax.report.history.drawing import Drawing, Kind, draw, text_width
from mtjax.report.history.run_json import RecordedRun
from mtjax.rounds.history import TreeRecord

EDGE = "#4a4a55"
# Face, edge and style; blue and orange differ for every kind of colour vision.
STYLES = {
  Kind.ROOT: ("#e8e8ec", EDGE, "solid"),
  Kind.ACCEPTED: ("#cfe0f5", "#2b5fa8", "solid"),
  Kind.REFUSED: ("#ffffff", "#b9b9c2", "solid"),
  Kind.BONUS: ("#fdebd3", "#c9761b", "dashed"),
}
LABELS = {
  Kind.ROOT: "emitted before",
  Kind.ACCEPTED: "draft, accepted",
  Kind.REFUSED: "draft, refused",
  Kind.BONUS: "the target's own token",
}
_CHARACTER, _LINE = 0.098, 0.40  # inches of one, at the font size
_FONT, _SMALL = 10, 7
_MARGIN, _TOP, _BOTTOM = 0.3, 0.75, 0.5


def round_picture(run: RecordedRun, number: int, row: int = 0) -> Any:
  """Returns a figure of one round of one row; round 0 is the prefill.

  A number beside a draft is its probability under its parent, where the drafter sampled. Raises
  ValueError for a round or row that is not there, for one that had ended, and for a fill, whose
  rounds have no tree.
  """
  tree = get_tree(run, number, row)
  drawing = draw(tree, run.piece)
  title = describe(run, number, row)
  times = time_line(run.history[number].seconds)
  legend = "    ".join(LABELS.values())
  inner = max(
    drawing.width * _CHARACTER, text_width(title) * 0.088, text_width(legend) * 0.082 + 1.2
  )
  width, height = inner + 2 * _MARGIN, (drawing.height + 1) * _LINE + _TOP + _BOTTOM
  figure = plotting.new_figure(figsize=(width, height))
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set(xlim=(0, width), ylim=(height, 0))
  axes.axis("off")
  axes.text(_MARGIN, 0.26, title, fontsize=11, va="center", weight="bold")
  axes.text(_MARGIN, 0.52, times, fontsize=8.5, va="center", color=EDGE)
  _tree(axes, drawing)
  _legend(axes, height - 0.24, drawing)
  return figure


def get_tree(run: RecordedRun, number: int, row: int) -> TreeRecord:
  """Returns the tree of a round in a row. Raises ValueError, as `round_picture` does."""
  if not 0 <= number < len(run.history):
    raise ValueError(f"there are rounds 0 to {len(run.history) - 1}: got round {number}")
  if not 0 <= row < run.rows:
    raise ValueError(f"there are rows 0 to {run.rows - 1}: got row {row}")
  tree = run.history[number].rows[row]
  if tree is None:
    raise ValueError(f"row {row} had ended before round {number}")
  if not isinstance(tree, TreeRecord):
    raise ValueError("a fill has passes and no trees: its page shows them")
  return tree


def fullest_round(run: RecordedRun, row: int = 0) -> int:
  """Returns the round with the most accepted drafts in a row; of equals, the smallest tree."""
  trees = {i: one.rows[row] for i, one in enumerate(run.history)}
  sizes = {i: t for i, t in trees.items() if isinstance(t, TreeRecord)}
  return max(sizes, key=lambda i: (len(sizes[i].path), -len(sizes[i].tokens)))


def describe(run: RecordedRun, number: int, row: int) -> str:
  """Returns what happened in a round, in a line."""
  tree = get_tree(run, number, row)
  where = "prefill" if number == 0 else f"round {number}"
  drafts, accepted = len(tree.tokens) - 1, len(tree.path) - 1
  said = f"{accepted} of {drafts} drafts accepted" if drafts else "no draft"
  return f"{run.title}, {where}: {said}, {counted(len(tree.emitted), 'token', 'tokens')} emitted"


def time_line(seconds: Mapping[str, float]) -> str:
  """Returns the time of each stage."""
  each = ", ".join(f"{name} {milliseconds(value)}" for name, value in seconds.items())
  total = sum(seconds.values())
  return each if len(seconds) == 1 else f"{each}; in all {milliseconds(total)}"


def milliseconds(seconds: float) -> str:
  return f"{1e3 * seconds:.2f} ms" if seconds < 0.01 else f"{1e3 * seconds:,.1f} ms"


def counted(number: int, one: str, more: str) -> str:
  return f"{number} {one if number == 1 else more}"


def _tree(axes, drawing: Drawing) -> None:
  def place(x, y):
    return _MARGIN + x * _CHARACTER, _TOP + (y + 0.5) * _LINE

  for line in drawing.lines:
    start, end = place(line.start.right, line.start.y), place(line.end.x, line.end.y)
    middle = start[0] + 0.18 * (place(line.end.x, 0)[0] - start[0])
    _, color, style = STYLES[line.end.kind]
    on_path = line.end.kind is not Kind.REFUSED
    axes.plot(
      (start[0], middle, middle, end[0]), (start[1], start[1], end[1], end[1]), color=color,
      lw=1.8 if on_path else 0.9, linestyle=style, zorder=2 if on_path else 1,
      solid_joinstyle="round",
    )  # fmt: skip
  for box in drawing.boxes:
    _box(axes, *place(box.x, box.y), box.width * _CHARACTER, box.text, box.kind)
    if box.note:
      x, y = place(box.x, box.y)
      axes.text(x - 0.05, y - 0.035, box.note, fontsize=_SMALL, ha="right", va="bottom",
                color=EDGE)  # fmt: skip


def _box(axes, x, y, width, text, kind: Kind) -> None:
  from matplotlib.patches import FancyBboxPatch

  face, edge, style = STYLES[kind]
  height = 0.62 * _LINE
  axes.add_patch(
    FancyBboxPatch(
      (x, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.05",
      facecolor=face, edgecolor=edge, linestyle=style, zorder=3,
    )
  )  # fmt: skip
  axes.text(
    x + width / 2, y, text.replace("$", r"\$"), fontsize=_FONT, family="monospace", ha="center",
    va="center_baseline", zorder=4, color="#8a8a94" if kind is Kind.REFUSED else "black",
  )  # fmt: skip


def _legend(axes, y: float, drawing: Drawing) -> None:
  x, shown = _MARGIN, {box.kind for box in drawing.boxes}
  for kind, label in LABELS.items():
    if kind in shown:
      face, edge, style = STYLES[kind]
      axes.add_patch(
        _rectangle((x, y - 0.06), 0.2, 0.12, facecolor=face, edgecolor=edge, linestyle=style)
      )
      axes.text(x + 0.28, y, label, fontsize=8.5, va="center", color=EDGE)
      x += 0.28 + len(label) * 0.075 + 0.25


def _rectangle(*arguments, **settings):
  from matplotlib.patches import Rectangle

  return Rectangle(*arguments, **settings)
