"""Masks as pictures: who sees whom, and which blocks are computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kernels_pallas.frontier_attention.blocks import any_visible, in_order, labels_of, order_of
from mtjax.frontier import as_dense
from mtjax.report import plotting
from mtjax.types import Frontier


def blocks_picture(frontiers: Mapping[str, Frontier], block: int) -> Any:
  """Draws each mask twice: above in the order of its entries, below sorted, as it is computed.

  Dark: pairs that see each other. Red: blocks of block x block that are skipped.
  """
  picture = plotting.new_figure(figsize=(3 * len(frontiers), 6.6))
  axes = picture.subplots(2, len(frontiers), squeeze=False)
  for column, (name, frontier) in enumerate(frontiers.items()):
    dense = np.asarray(as_dense(frontier))[0]
    queries, keys = labels_of(frontier.stamp, frontier.lo, frontier.hi)
    order, key_order = order_of(queries, keys)
    mixed = dense[np.asarray(order)[0]][:, np.asarray(key_order)[0]]
    for axis, mask, labels, how in (
      (axes[0, column], dense, (queries, keys), name),
      (axes[1, column], mixed, (in_order(queries, order), in_order(keys, key_order)), "in order"),
    ):
      computed = np.asarray(any_visible(labels[0], labels[1], block, block))[0]
      _draw(axis, mask, computed, block)
      axis.set_title(f"{how}: {1 - computed.mean():.0%} skipped", fontsize=9)
  axes[0, 0].set_ylabel("queries")
  axes[1, 0].set(xlabel="keys", ylabel="queries")
  picture.tight_layout()
  return picture


def _draw(axis, mask, computed, block) -> None:
  shown = np.ones((*mask.shape, 3))
  shown[mask] = (0.15, 0.25, 0.45)
  empty = np.repeat(np.repeat(~computed, block, axis=0), block, axis=1)
  shown[empty] = (0.98, 0.86, 0.84)
  axis.imshow(shown, interpolation="nearest")
  for at in range(0, mask.shape[0] + 1, block):
    axis.axhline(at - 0.5, color="0.75", linewidth=0.5)
    axis.axvline(at - 0.5, color="0.75", linewidth=0.5)
  axis.set(xticks=[], yticks=[])
