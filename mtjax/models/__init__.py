"""Networks: the only package that imports linen."""

from mtjax.models.config import (
  ANY_SUBSET_NAMES,
  Layer,
  Rope,
  TransformerConfig,
  uniform_layers,
)
from mtjax.models.diffusion_gemma import (
  CanvasLayer,
  DiffusionGemmaConfig,
  canvas_frontier,
  canvas_layers,
  signal_of,
)
from mtjax.models.model import (
  Config,
  Model,
  Params,
  check_causal,
  count_parameters,
  describe_network,
  prefix_params,
)
from mtjax.models.summary import WeightsSummary, summarize_weights
from mtjax.models.xlnet import XLNetConfig, position_of

__all__ = [
  "ANY_SUBSET_NAMES",
  "CanvasLayer",
  "Config",
  "DiffusionGemmaConfig",
  "Layer",
  "Model",
  "Params",
  "Rope",
  "TransformerConfig",
  "WeightsSummary",
  "XLNetConfig",
  "canvas_frontier",
  "canvas_layers",
  "check_causal",
  "count_parameters",
  "describe_network",
  "position_of",
  "prefix_params",
  "signal_of",
  "summarize_weights",
  "uniform_layers",
]
