"""ResGen (2412.10208): all depths of residual codes at once, by masked diffusion. See README.md."""

from mtjax.recipes.resgen.decode import DecodePlan, Decoding, generate
from mtjax.recipes.resgen.masking import (
  cosine_share,
  mask_counts,
  masked_tokens,
  remask,
  sample_counts,
)
from mtjax.recipes.resgen.mixture import Mixture
from mtjax.recipes.resgen.quantizer import ResidualQuantizer, fit_quantizer

__all__ = [
  "DecodePlan",
  "Decoding",
  "Mixture",
  "ResidualQuantizer",
  "cosine_share",
  "fit_quantizer",
  "generate",
  "mask_counts",
  "masked_tokens",
  "remask",
  "sample_counts",
]
