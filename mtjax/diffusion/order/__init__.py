"""Order policies: which positions of a canvas are decided first."""

from mtjax.diffusion.order.credit import Credit
from mtjax.diffusion.order.halton import Halton
from mtjax.diffusion.order.left_to_right import LeftToRight
from mtjax.diffusion.order.low_entropy import LowEntropy
from mtjax.diffusion.order.max_probability import MaxProbability
from mtjax.diffusion.order.position_calibrated import PositionCalibrated
from mtjax.diffusion.order.random_positions import RandomPositions
from mtjax.diffusion.order.sampled_probability import SampledProbability
from mtjax.diffusion.order.stability import Stability
from mtjax.diffusion.order.top_margin import TopMargin

__all__ = [
  "Credit",
  "Halton",
  "LeftToRight",
  "LowEntropy",
  "MaxProbability",
  "PositionCalibrated",
  "RandomPositions",
  "SampledProbability",
  "Stability",
  "TopMargin",
]
