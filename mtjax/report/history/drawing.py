"""A recorded tree as boxes and lines, from left to right as text is read.

Units are characters of a monospaced font to the right, and lines of text downwards: a box is as
wide as its text, a column as its widest box, and every leaf has a line of its own, so nothing
overlaps whatever the tree is.
"""

import dataclasses
import enum
import unicodedata
from collections.abc import Callable

from mtjax.rounds.history import TreeRecord

PADDING = 1.2  # of a box, left and right of its text together
GAP = 4.8  # between two columns


class Kind(enum.Enum):
  """The kinds of nodes: what became of each in its round."""

  ROOT = "root"
  ACCEPTED = "accepted"
  REFUSED = "refused"
  BONUS = "bonus"


@dataclasses.dataclass(frozen=True)
class Box:
  """A token. `x` is its left edge, `y` its middle."""

  x: float
  y: float
  width: float
  text: str
  note: str  # its probability, or nothing
  kind: Kind

  @property
  def right(self) -> float:
    return self.x + self.width


@dataclasses.dataclass(frozen=True)
class Line:
  """From the right edge of a box to the left edge of another one."""

  start: Box
  end: Box


@dataclasses.dataclass(frozen=True)
class Drawing:
  boxes: list[Box]
  lines: list[Line]

  @property
  def width(self) -> float:
    return max(box.right for box in self.boxes)

  @property
  def height(self) -> float:
    return max(box.y for box in self.boxes)


def draw(tree: TreeRecord, piece: Callable[[int], str]) -> Drawing:
  """Returns the tree with its accepted path, and the token that the target added, dashed."""
  children: list[list[int]] = [[] for _ in tree.tokens]
  depth = [0] * len(tree.tokens)
  for node, parent in enumerate(tree.parents):
    if parent >= 0:
      children[parent].append(node)
      depth[node] = depth[parent] + 1
  tokens, notes = list(tree.tokens), [_note(prob) for prob in tree.draft_probs]
  accepted = set(tree.path[1:])
  kinds = [Kind.ACCEPTED if node in accepted else Kind.REFUSED for node in range(len(tokens))]
  kinds[0] = Kind.ROOT
  if tree.bonus is not None:
    last = tree.path[-1]
    # Above the drafts that it was taken in place of.
    children[last].insert(0, len(tokens))
    children.append([])
    depth.append(depth[last] + 1)
    tokens.append(tree.bonus)
    notes.append("")
    kinds.append(Kind.BONUS)
  texts = [piece(token) for token in tokens]
  columns = [0.0] * (max(depth) + 1)
  for text, at in zip(texts, depth, strict=True):
    columns[at] = max(columns[at], text_width(text) + PADDING)
  left = [sum(columns[:at]) + GAP * at for at in range(len(columns))]
  heights = _heights(children)
  boxes = [
    Box(left[depth[i]], heights[i], text_width(texts[i]) + PADDING, texts[i], notes[i], kinds[i])
    for i in range(len(tokens))
  ]
  lines = [Line(boxes[i], boxes[j]) for i, below in enumerate(children) for j in below]
  return Drawing(boxes, lines)


def text_width(text: str) -> int:
  """Returns the columns that a text takes in a monospaced font."""
  wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
  return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def _heights(children: list[list[int]]) -> list[float]:
  """Returns the line of each node: leaves one below the other, a parent beside its children."""
  heights = [0.0] * len(children)
  leaves, stack = 0, [(0, False)]
  while stack:
    node, are_placed = stack.pop()
    below = children[node]
    if not below:
      heights[node], leaves = float(leaves), leaves + 1
    elif are_placed:
      heights[node] = (heights[below[0]] + heights[below[-1]]) / 2
    else:
      stack += [(node, True), *((child, False) for child in reversed(below))]
  return heights


def _note(prob: float | None) -> str:
  if prob is None:
    return ""
  return f"{prob:.2f}" if prob >= 0.01 else "<0.01"
