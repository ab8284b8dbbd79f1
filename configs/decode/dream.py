"""Dream's loop on the bundled masked model: the positions of lowest entropy first (2508.15487).

python -m experiments.decode --config=configs/decode/dream.py --prompt="The old clock"

Sampled at temperature 0.2 with nucleus 0.95, in one block; confidences are those after both.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("dream")
