"""Any-subset autoregressive models (2504.20456): any positions given, any positions asked."""

from mtjax.anysubset.canvas import Canvas, make_canvas, query_token, sink_token
from mtjax.anysubset.orders import lattice

__all__ = ["Canvas", "lattice", "make_canvas", "query_token", "sink_token"]
