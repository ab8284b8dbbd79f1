"""Matrix products for decoding on a CPU, compiled on first use with the system's C++ compiler.

Decoding one token reads every weight once: its time is that of reading memory. XLA's CPU matmul
reaches under half of it for float32 and far less for narrower weights with one row.
"""

from mtjax.native.matmul import panel_matmul, support
from mtjax.native.packed_weights import pack_panels, quantize_int8, unpack_panels

__all__ = ["pack_panels", "panel_matmul", "quantize_int8", "support", "unpack_panels"]
