"""Positions far from each other, along the Halton sequence (2503.17076).

python -m experiments.decode --config=configs/decode/halton.py --prompt="The old clock"

Four of 64 positions per pass, each about a quarter of its block from the others, so that what they
are depends little on each other. --config.denoise.steps=64 decides one per pass, which keeps the
distribution of that order.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("halton")
