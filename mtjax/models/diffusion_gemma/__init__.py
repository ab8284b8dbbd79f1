"""DiffusionGemma: one stack of layers that reads clean text causally and denoises canvases."""

from mtjax.models.diffusion_gemma.canvases import canvas_frontier, signal_of
from mtjax.models.diffusion_gemma.config import (
  CanvasLayer,
  DiffusionGemmaConfig,
  canvas_layers,
)
from mtjax.models.diffusion_gemma.network import DiffusionGemma, DiffusionGemmaHead

__all__ = [
  "CanvasLayer",
  "DiffusionGemma",
  "DiffusionGemmaConfig",
  "DiffusionGemmaHead",
  "canvas_frontier",
  "canvas_layers",
  "signal_of",
]
