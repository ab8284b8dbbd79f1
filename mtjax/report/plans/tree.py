"""A rated tree, drawn from its root downwards."""

from typing import Any

from mtjax.trees import Topology
from mtjax.tuning.shapes import RatedTree

_FEW = 24  # nodes of one depth that have room for two digits each


def draw_tree(axis: Any, rated: RatedTree, *, title: str) -> None:
  """Draws a tree: a number is the probability that the node and all above it are accepted.

  Siblings stand in the order of their ranks. Lines are as wide and nodes as dark as that.
  """
  from matplotlib import colormaps

  shape, x = rated.topology, places(rated.topology)
  shades = colormaps["Blues"]
  for node, parent in enumerate(shape.parent[1:], 1):
    reach = rated.reach[node]
    axis.plot(
      (x[parent], x[node]), (-shape.depth[parent], -shape.depth[node]),
      color=shades(0.3 + 0.6 * reach), linewidth=0.6 + 4 * reach, zorder=1,
    )  # fmt: skip
  widest = max(len(level) for level in shape.levels())
  small = widest > _FEW
  size = 150 if small else 620
  axis.scatter(
    x, [-depth for depth in shape.depth], s=size, zorder=2, edgecolors="#4a4a55", linewidths=0.7,
    c=[shades(0.05 + 0.55 * reach) for reach in rated.reach],
  )  # fmt: skip
  for node, reach in enumerate(rated.reach):
    # Below each node where they are close, and upright there, so that no two numbers meet.
    text = "root" if node == 0 else f"{reach:.2f}" if reach >= 0.01 else "<.01"
    axis.annotate(
      text, (x[node], -shape.depth[node]), ha="center",
      va="top" if small and node else "center_baseline",
      xytext=(0, -9 if small and node else 0), textcoords="offset points",
      rotation=90 if small and node else 0, fontsize=7 if small else 8.5, zorder=3,
    )  # fmt: skip
  axis.set(
    xlim=(-1, max(x) + 1), ylim=(-shape.height - 0.75, 0.45), yticks=[-d for d in set(shape.depth)],
    yticklabels=[f"depth {d}" if d else "" for d in set(shape.depth)],
  )  # fmt: skip
  axis.set_title(title, fontsize=11)
  axis.set_xticks([])
  axis.spines[:].set_visible(False)
  axis.tick_params(length=0)


def places(shape: Topology) -> list[float]:
  """Returns where each node stands: leaves one beside the other, parents above their children."""
  children, out, leaves = shape.children(), [0.0] * shape.size, 0

  def place(node: int) -> None:
    nonlocal leaves
    below = children[node]
    for child in below:
      place(child)
    if below:
      out[node] = (out[below[0]] + out[below[-1]]) / 2
    else:
      out[node], leaves = float(leaves), leaves + 1

  place(0)
  return out
