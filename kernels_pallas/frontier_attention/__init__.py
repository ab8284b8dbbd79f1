"""Attention of a frontier over a committed prefix and itself, masked by stamps in intervals."""

from kernels_pallas.frontier_attention.api import frontier_attention
from kernels_pallas.frontier_attention.blocks import any_visible_blocks, visible
from kernels_pallas.frontier_attention.dispatch import chosen
from kernels_pallas.frontier_attention.softmax import merged, merged_over

__all__ = [
  "any_visible_blocks",
  "chosen",
  "frontier_attention",
  "merged",
  "merged_over",
  "visible",
]
