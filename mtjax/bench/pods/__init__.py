"""A whole round of decoding compiled for meshes that are not here: memory and what is exchanged."""

from mtjax.bench.pods.cases import CASES, COMPILED, MESHES, MODELS, PodMesh, RoundCase
from mtjax.bench.pods.collectives import Collective, collectives, of_size, of_vocabulary
from mtjax.bench.pods.process import CompiledRound, compile_rounds
from mtjax.bench.pods.round import MemoryRow, table

__all__ = [
  "CASES",
  "COMPILED",
  "MESHES",
  "MODELS",
  "Collective",
  "CompiledRound",
  "PodMesh",
  "RoundCase",
  "MemoryRow",
  "collectives",
  "compile_rounds",
  "of_size",
  "of_vocabulary",
  "table",
]
