"""Networks: the only package that imports linen."""

from mtjax.models.config import (
  ANY_SUBSET_NAMES,
  Layer,
  Rope,
  TransformerConfig,
  uniform_layers,
)
from mtjax.models.model import (
  Config,
  Model,
  Params,
  check_causal,
  count_parameters,
  prefix_params,
)
from mtjax.models.xlnet import XLNetConfig, position_of

__all__ = [
  "ANY_SUBSET_NAMES",
  "Config",
  "Layer",
  "Model",
  "Params",
  "Rope",
  "TransformerConfig",
  "XLNetConfig",
  "check_causal",
  "count_parameters",
  "position_of",
  "prefix_params",
  "uniform_layers",
]
