"""Attention of a frontier over a committed prefix and itself, masked by stamps in intervals."""

from kernels_pallas.frontier_attention.api import frontier_attention
from kernels_pallas.frontier_attention.reference import visible

__all__ = ["frontier_attention", "visible"]
