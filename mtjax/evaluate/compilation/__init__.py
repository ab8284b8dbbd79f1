"""Frontier attention compiled for chips that are not here: what their compilers say of it."""

from mtjax.evaluate.compilation.chips import CHIPS, MESHES, Chip, missing, versions
from mtjax.evaluate.compilation.dumps import Figures
from mtjax.evaluate.compilation.process import Compiled, Job, compiled, table
from mtjax.evaluate.compilation.shapes import LAYER, Shape, shapes_of

__all__ = [
  "CHIPS",
  "LAYER",
  "MESHES",
  "Chip",
  "Compiled",
  "Figures",
  "Job",
  "Shape",
  "compiled",
  "missing",
  "shapes_of",
  "table",
  "versions",
]
