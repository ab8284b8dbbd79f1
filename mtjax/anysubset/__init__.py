"""Any-subset autoregressive models (2504.20456): any positions as context, any as targets."""

from mtjax.anysubset.canvas import Canvas, make_canvas, query_token, sink_token
from mtjax.anysubset.filling.confidence import Confidence
from mtjax.anysubset.filling.masks.eso import Eso
from mtjax.anysubset.filling.masks.window import SlidingWindow
from mtjax.anysubset.filling.method import FillMethod
from mtjax.anysubset.filling.methods import (
  ContextNGram,
  DraftOnce,
  Fused,
  SelfDraft,
  Sequential,
)
from mtjax.anysubset.filling.run import Filled, fill, stream
from mtjax.anysubset.likelihood.density import log_likelihood
from mtjax.anysubset.orders import lattice

__all__ = [
  "Canvas",
  "Confidence",
  "ContextNGram",
  "DraftOnce",
  "Eso",
  "FillMethod",
  "Filled",
  "Fused",
  "SelfDraft",
  "Sequential",
  "SlidingWindow",
  "fill",
  "lattice",
  "log_likelihood",
  "make_canvas",
  "query_token",
  "sink_token",
  "stream",
]
