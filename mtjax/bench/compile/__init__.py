"""Frontier attention compiled for chips that are not here, and the reports of the compilers."""

from mtjax.bench.compile.chips import CHIPS, MESHES, Chip, missing, versions
from mtjax.bench.compile.dumps import Figures
from mtjax.bench.compile.process import Compiled, CompileJob, compiled, table
from mtjax.bench.compile.shapes import LAYER, CompiledShape, shapes_of

__all__ = [
  "CHIPS",
  "LAYER",
  "MESHES",
  "Chip",
  "Compiled",
  "Figures",
  "CompileJob",
  "CompiledShape",
  "compiled",
  "missing",
  "shapes_of",
  "table",
  "versions",
]
