"""Frontier attention compiled for chips that are not here: what their compilers say of it."""

from mtjax.bench.compile.chips import CHIPS, MESHES, Chip, missing, versions
from mtjax.bench.compile.dumps import Figures
from mtjax.bench.compile.process import Compiled, Job, compiled, table
from mtjax.bench.compile.shapes import LAYER, Shape, shapes_of

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
