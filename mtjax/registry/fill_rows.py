"""The rows of the fill methods in the table of all methods."""

from mtjax.anysubset import (
  Confidence,
  ContextNGram,
  DraftOnce,
  Eso,
  Fused,
  SelfDraft,
  Sequential,
  SlidingWindow,
)
from mtjax.registry.fill_methods import FillEntry
from mtjax.registry.rows import MethodRow, fill_row
from mtjax.types import Exactness

FILL_ROWS: dict[str, MethodRow] = {
  "sequential": fill_row(
    title="one token per forward pass",
    pays="A model whose weights fit the caches of the CPU: no other method was faster there by "
    "more than a few percent.",
    paper="-",
    exactness=Exactness.LOSSLESS,
    file="mtjax/anysubset/filling/methods.py",
    fill=FillEntry(Sequential, window=None),
  ),
  "self": fill_row(
    title="ASSD: the model drafts for itself",
    pays="Where reading the weights bounds a forward pass: it was faster than `sequential` there.",
    paper="2504.20456",
    exactness=Exactness.LOSSLESS,
    file="mtjax/anysubset/filling/methods.py",
    fill=FillEntry(SelfDraft),
  ),
  "fused": fill_row(
    title="ASSD, the next drafts in the pass that verifies",
    pays="As `self`, with a small window; it was faster than `self` with float32 weights.",
    paper="2504.20456",
    exactness=Exactness.LOSSLESS,
    file="mtjax/anysubset/filling/methods.py",
    fill=FillEntry(Fused),
  ),
  "once": fill_row(
    title="ASSD, all drafts from the first pass",
    pays="As `self`; it was the fastest of all with float32 weights.",
    paper="2504.20456",
    exactness=Exactness.LOSSLESS,
    file="mtjax/anysubset/filling/methods.py",
    fill=FillEntry(DraftOnce),
  ),
  "ngram": fill_row(
    title="ASSD, drafts from bigrams of the context",
    pays="It did not pay on the texts that were measured, where few of its drafts are accepted.",
    paper="2504.20456",
    exactness=Exactness.LOSSLESS,
    file="mtjax/anysubset/filling/methods.py",
    fill=FillEntry(ContextNGram),
  ),
  "confidence": fill_row(
    title="the positions of which the model is most certain",
    pays="Where the order of filling matters more than the joint distribution; not measured yet.",
    paper="2202.04200",
    exactness=Exactness.APPROXIMATE,
    file="mtjax/anysubset/filling/confidence.py",
    test="tests/anysubset/test_confidence.py",
    fill=FillEntry(Confidence, window="per_pass"),
  ),
  "window": fill_row(
    title="Set Diffusion's sampler: all sure masks of a sliding window",
    pays="Where several tokens are sure at once, and their joint distribution matters less than "
    "the number of passes; not measured yet.",
    paper="2607.01775",
    exactness=Exactness.APPROXIMATE,
    file="mtjax/anysubset/filling/masks/window.py",
    test="tests/anysubset/test_masks.py",
    fill=FillEntry(SlidingWindow, window="size"),
  ),
  "eso": fill_row(
    title="Eso-LM's sampler: random places in few passes, then the rest one by one",
    pays="A model that was trained with the objective `eso`; not measured yet.",
    paper="2506.01928",
    exactness=Exactness.APPROXIMATE,
    file="mtjax/anysubset/filling/masks/eso.py",
    test="tests/anysubset/test_masks.py",
    fill=FillEntry(Eso, window=None),
  ),
}


def get_fill_entry(name: str) -> FillEntry:
  """Returns the entry that makes a fill method.

  Raises ValueError, with the known names, for another name.
  """
  row = FILL_ROWS.get(name)
  if row is None or row.fill is None:
    raise ValueError(f"fill method {name!r} is not one of: {', '.join(FILL_ROWS)}")
  return row.fill
