"""Ancestral sampling of a masked diffusion model (2406.07524, 2406.04329).

python -m experiments.decode --config=configs/decode/mdlm.py --prompt="The old clock"

Sampled at temperature 1. Each position is decided by a coin of its own; with more
--config.denoise.steps the distribution tends to that of configs/decode/first_hitting.py.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("mdlm")
