"""Matrix products for decoding on a CPU, compiled on first use with the system's C++ compiler.

Decoding one token reads every weight once: its time is that of reading memory. XLA's CPU matmul
reaches under half of it for float32 and far less for narrower weights with one row.
"""

from mtjax.native.matmul import packed_matmul, stacked_matmul, support
from mtjax.native.packed_weights import pack_weights, quantize_int8, unpack_weights

__all__ = [
  "pack_weights",
  "packed_matmul",
  "quantize_int8",
  "stacked_matmul",
  "support",
  "unpack_weights",
]
