"""Methods of filling by name, for launchers."""

from mtjax.anysubset.filling.confidence import Confidence
from mtjax.anysubset.filling.method import FillMethod
from mtjax.anysubset.filling.methods import (
  ContextNGram,
  DraftOnce,
  Fused,
  SelfDraft,
  Sequential,
)

# Name -> how to build the method from the number of entries that a pass may decide.
METHODS = {
  "sequential": lambda window: Sequential(),
  "self": SelfDraft,
  "fused": Fused,
  "once": DraftOnce,
  "ngram": ContextNGram,
  "confidence": lambda window: Confidence(per_pass=window),
}


def get_fill_method(name: str, window: int) -> FillMethod:
  """Returns one of METHODS. Raises ValueError for another name, and for a window below 1."""
  if name not in METHODS:
    raise ValueError(f"method {name!r} is not one of {', '.join(METHODS)}")
  return METHODS[name](window)
