"""First-hitting sampling of a masked diffusion model: its distribution, exactly (2409.02908).

python -m experiments.decode --config=configs/decode/first_hitting.py --prompt="The old clock"

Sampled at temperature 1. Each pass decides one random position, the limit of ancestral sampling.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("first_hitting")
